"""How often somebody may ask: token buckets, of this process, in bounded memory."""

import ipaddress
from collections import OrderedDict
from functools import lru_cache

BUCKETS_MAX = 10_000


class Buckets:
    """A bucket for each name, of `burst` tokens, that fills with `per_s` tokens a second. Without a rate, no limit.

    A full bucket says nothing, so none is kept of who never asked; of too many, the one longest unused is forgotten.
    """

    def __init__(self, *, per_s: float, burst: int, buckets_max: int = BUCKETS_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """Take a token: 0 if there was one, else the seconds until there is."""
        if not self._per_s:
            return 0
        tokens = self._tokens(name, now)
        if tokens < 1:
            return (1 - tokens) / self._per_s
        self._buckets[name] = (tokens - 1, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._buckets_max:
            self._buckets.popitem(last=False)
        return 0

    def wait(self, name: str, now: float) -> float:
        """The seconds until there is a token; none is taken."""
        if name not in self._buckets:
            return 0
        return max(0, (1 - self._tokens(name, now)) / self._per_s)

    def _tokens(self, name: str, now: float) -> float:
        tokens, at = self._buckets.get(name, (self._burst, now))
        return min(self._burst, tokens + (now - at) * self._per_s)


@lru_cache(maxsize=1_000)
def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the /64, since whoever has one address there has them all."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address
