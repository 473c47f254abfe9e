"""
The numbers behind the rules, as keys of the configuration.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from certbaton.model import Policy
from certbaton.settings_fields import Duration, Pause, Section

_DEFAULTS = Policy()


class PolicyConfig(Section):
    """The numbers behind the rules; shares are of the certificate's lifetime."""

    renew_left: float = Field(default=_DEFAULTS.renew_left, gt=0, lt=1)
    renew_left_short: float = Field(default=_DEFAULTS.renew_left_short, gt=0, lt=1)
    short_lifetime: Duration = _DEFAULTS.short_lifetime
    renew_jitter: float = Field(default=_DEFAULTS.renew_jitter, ge=0, lt=0.1)
    late: float = Field(default=_DEFAULTS.late, gt=0, lt=1)
    dangerous: float = Field(default=_DEFAULTS.dangerous, gt=0, lt=1)
    advice_poll_floor: Pause = _DEFAULTS.advice_poll_floor
    advice_poll_usual: Pause = _DEFAULTS.advice_poll_usual
    advice_poll_share: float = Field(default=_DEFAULTS.advice_poll_share, gt=0, lt=1)
    advice_poll_ceiling: Pause = _DEFAULTS.advice_poll_ceiling
    advice_limit: int = Field(default=_DEFAULTS.advice_limit, ge=1, le=1000)
    advice_limit_window: Pause = _DEFAULTS.advice_limit_window
    fallback_failures: int = Field(default=_DEFAULTS.fallback_failures, ge=1, le=1000)
    fallback_after: Duration = _DEFAULTS.fallback_after
    fallback_share: float = Field(default=_DEFAULTS.fallback_share, gt=0, lt=1)
    ca_back_off_first: Pause = _DEFAULTS.ca_back_off_first
    ca_back_off_ceiling: Pause = _DEFAULTS.ca_back_off_ceiling
    order_limit_open: Pause = _DEFAULTS.order_limit_open
    orders_at_a_time: int = Field(default=_DEFAULTS.orders_at_a_time, ge=1, le=64)
    requests_per_second: int = Field(default=_DEFAULTS.requests_per_second, ge=1, le=1000)
    retention_share: float = Field(default=_DEFAULTS.retention_share, ge=0, lt=1)
    retention_ceiling: Duration = _DEFAULTS.retention_ceiling
    sweep_share: float = Field(default=_DEFAULTS.sweep_share, ge=0, lt=1)
    sweep_ceiling: Duration = _DEFAULTS.sweep_ceiling
    settle_share: float = Field(default=_DEFAULTS.settle_share, gt=0, lt=1)
    settle_ceiling: Pause = _DEFAULTS.settle_ceiling
    handover_ceiling: Pause = _DEFAULTS.handover_ceiling
    alert_share: float = Field(default=_DEFAULTS.alert_share, gt=0, lt=1)
    alert_ceiling: Pause = _DEFAULTS.alert_ceiling
    drift_share: float = Field(default=_DEFAULTS.drift_share, gt=0, lt=1)
    drift_ceiling: Pause = _DEFAULTS.drift_ceiling
    drift_rounds: int = Field(default=_DEFAULTS.drift_rounds, ge=0, le=1000)
    claim_lapse: Pause = _DEFAULTS.claim_lapse
    claim_watch: Duration = _DEFAULTS.claim_watch
    clock_share: float = Field(default=_DEFAULTS.clock_share, gt=0, lt=1)
    clock_floor: Pause = _DEFAULTS.clock_floor
    clock_ceiling: Pause = _DEFAULTS.clock_ceiling
    keep_previous: int = Field(default=_DEFAULTS.keep_previous, ge=0, le=10)
    back_off: list[Pause] = Field(default=list(_DEFAULTS.back_off), min_length=1)
    back_off_share: float = Field(default=_DEFAULTS.back_off_share, gt=0, lt=1)
    order_limit: int = Field(default=_DEFAULTS.order_limit, ge=1, le=1000)
    order_limit_window: Pause = _DEFAULTS.order_limit_window
    validation_limit: int = Field(default=_DEFAULTS.validation_limit, ge=1, le=1000)
    validation_limit_window: Pause = _DEFAULTS.validation_limit_window
    poll_listener: Pause = _DEFAULTS.poll_listener
    backstop: Pause = _DEFAULTS.backstop

    @model_validator(mode="after")
    def _order_of_times(self) -> PolicyConfig:
        if self.late >= min(self.renew_left, self.renew_left_short):
            raise ValueError("late must be less than renewLeft and renewLeftShort")
        if self.dangerous > self.late:
            raise ValueError("dangerous must not be more than late")
        for less, more in (
            ("advice_poll_floor", "advice_poll_ceiling"),
            ("advice_poll_usual", "advice_poll_ceiling"),
            ("ca_back_off_first", "ca_back_off_ceiling"),
        ):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(f"{to_camel(less)} must not be more than {to_camel(more)}")
        return self

    def policy(self) -> Policy:
        """Give the same numbers as the core takes them."""
        values = {key: getattr(self, key) for key in type(self).model_fields}
        return Policy(**{**values, "back_off": tuple(self.back_off)})
