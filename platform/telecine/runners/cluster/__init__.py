"""The cluster runner: a component as a Job, RayJob or TrainJob of Kubernetes."""
