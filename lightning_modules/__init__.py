"""Lightning modules: one wing a workload on one shared floor (Workload, optimisation, callbacks)."""
