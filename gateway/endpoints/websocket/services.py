"""What the websockets of clients need of the rest of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.content_coding import DecodeScheduler
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.model_requests import ModelRequests
from gateway.endpoints.recording import Recorder
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.websocket.turn_memory import TurnMemory


@dataclass(frozen=True, slots=True)
class Services:
    """Each is made once, and shared by all websockets."""

    live: LiveConfig
    recorder: Recorder
    reader: RequestReader
    model_requests: ModelRequests
    turns: TurnMemory
    scheduler: DecodeScheduler
