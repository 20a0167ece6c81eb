"""What Prometheus sees: counts, seconds and the queue, with labels from short fixed lists and no free text."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from telecine_components.deploy.serve.tasks import DONE, Task, Tasks

_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One service's own registry."""

    def __init__(self, tasks: Tasks, *, model: str, version: str) -> None:
        self._registry = CollectorRegistry()
        info = Gauge("telecine_serve_model_info", "Model served.", ["model", "version"], registry=self._registry)
        info.labels(model, version).set(1)
        queue = Gauge("telecine_serve_queue_length", "Tasks that wait.", registry=self._registry)
        queue.set_function(lambda: len(tasks.waiting()))
        self._requests = Counter(
            "telecine_serve_requests", "HTTP requests.", ["method", "route", "code"], registry=self._registry
        )
        self._ended = Counter("telecine_serve_tasks", "Tasks that ended.", ["state"], registry=self._registry)
        self._seconds = Histogram(
            "telecine_serve_film_seconds",
            "Seconds from the start of sampling to the finished film.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def request(self, method: str, route: str, code: int) -> None:
        """Count a request by its route's pattern."""
        self._requests.labels(method, route, str(code)).inc()

    def task(self, task: Task) -> None:
        """Count a task that ended."""
        self._ended.labels(task.state).inc()
        if task.state == DONE and task.seconds is not None:
            self._seconds.observe(task.seconds)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)
