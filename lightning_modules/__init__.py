"""Lightning modules: one wing for each workload, on one shared floor."""
