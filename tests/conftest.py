"""What holds for every test: Hypothesis measures no time, since a loaded machine is no defect of what is tested."""

from hypothesis import settings

settings.register_profile("guardhouse", deadline=None)
settings.load_profile("guardhouse")
