//go:build unix && !linux

package audit

// Sync is the strongest that the system has (on macOS F_FULLFSYNC).
func (f *diskFile) Sync() error { return f.File.Sync() }
