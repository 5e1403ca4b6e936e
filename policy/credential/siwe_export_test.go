package credential

import "time"

// Current shows whether a message is good at a time.
func Current(m *SIWE, now time.Time) bool { return m.current(now) }
