// Package durable writes files of which whoever reads them, also after a power failure, finds the old content or the new one, and keeps
// processes apart that have a directory together.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// File is a file that waits beside the one whose place it will take.
type File struct{ file, name string }

// newPattern are the files of Prepare.
const newPattern = ".new-*"

// Prepare writes a file that is to take another one's place, in the same directory. It is on disk when Prepare returns, so that what can
// fail for want of room has failed by then. Who calls drops it.
func Prepare(name string, content []byte, mode os.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(name), newPattern)
	if err != nil {
		return nil, err
	}
	p := &File{f.Name(), name}
	if err := errors.Join(f.Chmod(mode), write(f, content), f.Close()); err != nil {
		p.Drop()
		return nil, err
	}
	return p, nil
}

func write(f *os.File, content []byte) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// Put gives the file its name, for good.
func (p *File) Put() error {
	if err := os.Rename(p.file, p.name); err != nil {
		return err
	}
	directory, err := os.Open(filepath.Dir(p.name))
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// Drop removes the file, unless it was put.
func (p *File) Drop() { _ = os.Remove(p.file) } // gone already where it was put

// Replace prepares a file and puts it.
func Replace(name string, content []byte, mode os.FileMode) error {
	p, err := Prepare(name, content, mode)
	if err != nil {
		return err
	}
	defer p.Drop()
	return p.Put()
}

// Sweep removes from a directory what processes left behind that ended while they wrote. Who calls holds the lock of those that write there.
func Sweep(dir string) error {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if left, _ := filepath.Match(newPattern, e.Name()); left {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
