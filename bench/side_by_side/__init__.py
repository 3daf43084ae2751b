"""What the benchmarks are made of: places (namespaces), programs that are pinned and watched, and the reports."""
