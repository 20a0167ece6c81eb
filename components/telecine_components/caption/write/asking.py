"""The captioner that asks a language model, and falls back to signals where it gives no caption of a clip."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telecine_components.caption.write import signals
from telecine_components.caption.write.endpoint import Endpoint
from telecine_components.caption.write.frames import evenly, pictures
from telecine_components.caption.write.prompt import BadAnswer, messages, parse
from telecine_components.caption.write.signals import SignalsCaptioner
from telecine_components.caption.write.spec import Inputs
from telecine_components.caption.write.told import Meter, Told, merged
from telecine_components.caption.write.windows import windows

RETRY_TEMPERATURE = 0.7
"""The first answer is the likeliest one; asked the same way again, a model would give it again."""

Row = Mapping[str, Any]


class AskingCaptioner:
    """Captions window by window; asks again for an answer that is no caption."""

    def __init__(self, inputs: Inputs, meter: Meter) -> None:
        self._inputs, self._meter = inputs, meter
        self._fallback = SignalsCaptioner()
        self._endpoint = Endpoint(
            url=inputs.endpoint_url,
            model=inputs.model,
            max_answer_tokens=inputs.max_answer_tokens,
            max_tries=inputs.max_tries,
            timeout_s=inputs.timeout_s,
        )

    def caption(self, video_path: Path, clip: Row) -> Told:
        """Caption one clip.

        Raises:
            RetryLater, InputError: as :meth:`.endpoint.Endpoint.ask`.
        """
        tally = Meter()
        try:
            spans = windows(clip["num_frames"], self._inputs.window_frames, self._inputs.min_window_frames)
            if not spans:
                raise BadAnswer("too few frames to ask about")
            said = [self._window(video_path, clip, span, tally) for span in spans]
        except BadAnswer as bad:
            unmeasured = {**clip, **dict.fromkeys(signals.MEASURES)}
            told = dataclasses.replace(self._fallback.caption(video_path, unmeasured), fault=bad.reason)
        else:
            told = Told(parts=merged(said), captioner=self._inputs.model)
        return dataclasses.replace(told, num_output_tokens=tally.num_tokens)

    def _window(self, video_path: Path, clip: Row, span: tuple[int, int], tally: Meter) -> dict[str, str]:
        start_s, end_s = (place / clip["fps"] for place in span)
        times_s = evenly(self._inputs.num_frames, start_s, min(end_s, clip["end_s"] - clip["start_s"]))
        frames = pictures(video_path, clip, times_s, side_px=self._inputs.frame_side_px)
        question, reason = messages(frames, end_s - start_s), ""
        for temperature in (0.0, *[RETRY_TEMPERATURE] * (self._inputs.max_tries - 1)):
            try:
                answer = self._endpoint.ask(question, temperature)
                self._count(answer.num_tokens, tally)
                return parse(answer.text)
            except BadAnswer as bad:
                self._count(bad.num_tokens, tally)
                reason = bad.reason
                if bad.is_final:
                    break
        raise BadAnswer(reason)

    def _count(self, num_tokens: int, tally: Meter) -> None:
        tally.add(num_tokens)
        self._meter.add(num_tokens)
