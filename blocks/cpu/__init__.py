"""What compiled CPU kernels share: elementary functions, compilation with a cache, threads."""
