package audit

import "golang.org/x/sys/unix"

// Sync is fdatasync(2): the times of the file need not be durable; its new size is, because reading needs it.
func (f *diskFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
