"""Numbers of the service for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Counts:
    """Counts of what has happened since this front started, and gauges of what is the case now."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter("sgmg_requests", "Requests that were answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "sgmg_request_seconds", "Seconds to the end of an answer", ["route"], registry=registry
        )
        self.frames = Counter("sgmg_frames", "Frames that were answered", registry=registry)
        self.lost = Counter("sgmg_lost_replicas", "Windows sent again because a replica was lost", registry=registry)
        self.running = Gauge("sgmg_running_requests", "Requests that are being answered", registry=registry)
        self.waiting = Gauge("sgmg_waiting_requests", "Requests that wait for their turn", registry=registry)
        self.videos = Gauge("sgmg_kept_videos", "Videos that are kept", registry=registry)
        self.bytes = Gauge("sgmg_kept_bytes", "Bytes on disk of kept videos", registry=registry)
        self.streams = Gauge("sgmg_live_streams", "Live streams that are open", registry=registry)

    def text(self) -> bytes:
        """Returns all numbers in the text format of Prometheus."""
        return generate_latest(self._registry)
