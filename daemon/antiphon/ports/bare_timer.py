"""A bare timer: a process that only wakes up at given dates, as the yardstick for one that also plays notes.

`python -m antiphon.ports.bare_timer START_NS PERIOD_NS COUNT` waits as the ports process waits, with the same
priority, and prints JSON: {"priority": …, "late_ns": […]}, how late it woke for each date.
"""

from __future__ import annotations

import json
import select
import sys
import time

from antiphon.ports.alarm import SPIN_NS, Alarm, be_prompt, spin_until


def wait_for(dates_ns: list[int]) -> list[int]:
    """Wake at each of `dates_ns`, sorted; gives how late each time, in ns."""
    alarm = Alarm()
    try:
        poll = select.epoll()
        poll.register(alarm.fd, select.EPOLLIN)
        late_ns: list[int] = []
        for date_ns in dates_ns:
            alarm.set(date_ns - SPIN_NS)
            poll.poll()
            alarm.rung()
            spin_until(date_ns)
            late_ns.append(time.monotonic_ns() - date_ns)
        poll.close()
        return late_ns
    finally:
        alarm.close()


def main() -> int:
    start_ns, period_ns, count = map(int, sys.argv[1:4])
    priority, _ = be_prompt()
    late_ns = wait_for([start_ns + index * period_ns for index in range(count)])
    print(json.dumps({"priority": priority, "late_ns": late_ns}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
