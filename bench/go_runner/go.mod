module guardhouse-bench/go_runner

go 1.19
