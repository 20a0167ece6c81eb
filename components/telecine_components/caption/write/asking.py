"""Captions by a language model, window by window."""

import dataclasses
from collections.abc import Sequence

from telecine_components.caption.write.endpoint import Endpoint
from telecine_components.caption.write.prompt import BadAnswer, messages, parse
from telecine_components.caption.write.spec import Inputs
from telecine_components.caption.write.told import Meter, Told, merged

RETRY_TEMPERATURE = 0.7
"""The first answer is the likeliest one; asked the same way again, a model would give it again."""


@dataclasses.dataclass(frozen=True)
class Window:
    """What a model is shown at once: pictures as JPEG, evenly spaced over so many seconds."""

    duration_s: float
    jpegs: Sequence[bytes]


class Asker:
    """Asks one endpoint; usable from several threads."""

    def __init__(self, inputs: Inputs) -> None:
        self._model, self._max_tries = inputs.model, inputs.max_tries
        self._endpoint = Endpoint(
            url=inputs.endpoint_url,
            model=inputs.model,
            max_answer_tokens=inputs.max_answer_tokens,
            max_tries=inputs.max_tries,
            timeout_s=inputs.timeout_s,
        )

    def caption(self, shown: Sequence[Window], meter: Meter) -> Told:
        """Caption one clip; without parts, and with the fault, where the model gives no caption of it.

        ``meter`` counts what all clips take.

        Raises:
            RetryLater, InputError: as :meth:`.endpoint.Endpoint.ask`.
        """
        meters = (meter, Meter())
        try:
            if not shown:
                raise BadAnswer("too few frames to ask about")
            told = Told(parts=merged([self._window(window, meters) for window in shown]), captioner=self._model)
        except BadAnswer as bad:
            told = Told(parts={}, captioner=self._model, fault=bad.reason)
        return dataclasses.replace(told, num_output_tokens=meters[1].num_tokens)

    def _window(self, window: Window, meters: Sequence[Meter]) -> dict[str, str]:
        question, reason = messages(window.jpegs, window.duration_s), ""
        for temperature in (0.0, *[RETRY_TEMPERATURE] * (self._max_tries - 1)):
            try:
                answer = self._endpoint.ask(question, temperature)
                _count(answer.num_tokens, meters)
                return parse(answer.text)
            except BadAnswer as bad:
                _count(bad.num_tokens, meters)
                reason = bad.reason
                if bad.is_final:
                    break
        raise BadAnswer(reason)


def _count(num_tokens: int, meters: Sequence[Meter]) -> None:
    for meter in meters:
        meter.add(num_tokens)
