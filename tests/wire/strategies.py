"""Any value of any message type, within its bounds, made from the type itself so that a new field is covered."""

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
# Every text field that has a pattern allows these; NUL and control characters are what the patterns refuse.
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
DIGEST = st.text("0123456789abcdef:", min_size=1, max_size=12)


def values_of(kind: type[msgspec.Struct]) -> st.SearchStrategy:
    """Return a strategy for ``kind``; optional fields are there or not."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    required = {field.name: _of(field.type, field.name) for field in info.fields if field.required}
    optional = {field.name: _of(field.type, field.name) for field in info.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind(**fields))


def _of(info: inspect.Type, name: str) -> st.SearchStrategy:
    match info:
        case inspect.StructType():
            return values_of(info.cls)
        case inspect.UnionType():
            return st.one_of([_of(one, name) for one in info.types])
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(info.cls)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(info.ge if info.ge is not None else -9, min(info.le or 99, 2**53))
        case inspect.FloatType():
            return st.floats(info.ge or 0, min(info.le or 99, 1e6))
        case inspect.BytesType():
            return st.binary(max_size=40)
        case inspect.StrType() if info.pattern and "markdown" in info.pattern:
            return st.sampled_from(["", "markdown", "text", "html"])
        case inspect.StrType() if info.pattern and "0-9A-Za-z" in info.pattern:
            return DIGEST
        case inspect.StrType() if info.pattern:
            return PRINTABLE
        case inspect.StrType():
            return st.text(min_size=info.min_length or 0, max_size=12)
        case inspect.VarTupleType():
            return st.lists(_of(info.item_type, name), max_size=3).map(tuple)
        case inspect.DictType():
            return st.dictionaries(_of(info.key_type, name), _of(info.value_type, name), max_size=3)
        case inspect.AnyType():
            return JSON
        case _:
            raise AssertionError(f"no strategy for {info} of {name}")
