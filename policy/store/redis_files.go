package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var _ Files = (*Redis)(nil)

// filesKey is the one hash of all files: its fields are their paths. What is in braces is its hash slot.
func (r *Redis) filesKey() string { return r.prefix + ":files:{files}" }

// lockKey is where a lock stands while somebody holds it.
func (r *Redis) lockKey(name string) string { return r.prefix + ":lock:{files}:" + name }

// files runs an operation on files.
func (r *Redis) files(ctx context.Context, op operation, mistake error, do func() error) error {
	start := time.Now()
	err := r.begin(ctx, op, mistake)
	if err == nil {
		err = do()
	}
	r.meter.done(op, err, start)
	return err
}

// fileTimeDigits leads each field: when it was put there, Unix ms in decimal.
const fileTimeDigits = 16

// PutFile is Files.PutFile.
func (r *Redis) PutFile(ctx context.Context, path string, value []byte) error {
	return r.files(ctx, opFiles, checkFile(path, value), func() error {
		field := append(fmt.Appendf(nil, "%0*d", fileTimeDigits, time.Now().UnixMilli()), value...)
		if err := r.again.HSet(ctx, r.filesKey(), path, field).Err(); err != nil {
			return failed(ctx, opFiles, err)
		}
		return nil
	})
}

// GetFile is Files.GetFile.
func (r *Redis) GetFile(ctx context.Context, path string) (f File, err error) {
	err = r.files(ctx, opFiles, checkFilePath(path), func() error {
		field, err := r.again.HGet(ctx, r.filesKey(), path).Bytes()
		switch {
		case errors.Is(err, redis.Nil):
			return ErrUnknown
		case err != nil:
			return failed(ctx, opFiles, err)
		case len(field) < fileTimeDigits:
			return unexpected(opFiles)
		}
		at, err := strconv.ParseInt(string(field[:fileTimeDigits]), 10, 64)
		if err != nil {
			return unexpected(opFiles)
		}
		f = File{Value: field[fileTimeDigits:], Modified: time.UnixMilli(at)}
		return nil
	})
	return f, err
}

// RemoveFiles is Files.RemoveFiles.
func (r *Redis) RemoveFiles(ctx context.Context, path string) error {
	return r.files(ctx, opFiles, checkFilePath(path), func() error {
		if _, err := removeScript.run(ctx, r.again, []string{r.filesKey()}, path); err != nil {
			return failed(ctx, opFiles, err)
		}
		return nil
	})
}

// ListFiles is Files.ListFiles.
func (r *Redis) ListFiles(ctx context.Context) (paths []string, err error) {
	err = r.files(ctx, opFiles, nil, func() error {
		var err error
		if paths, err = r.again.HKeys(ctx, r.filesKey()).Result(); err != nil {
			return failed(ctx, opFiles, err)
		}
		return nil
	})
	return paths, err
}

// Hold is Files.Hold.
func (r *Redis) Hold(ctx context.Context, name string, h Holder, lease time.Duration) error {
	return r.lock(ctx, holdScript, checkLock(name, lease), ErrExists, name, h[:], milliseconds(lease))
}

// Release is Files.Release.
func (r *Redis) Release(ctx context.Context, name string, h Holder) error {
	return r.lock(ctx, releaseScript, checkLock(name, time.Second), ErrUnknown, name, h[:])
}

// lock runs a script that answers 1, or 0 for the refusal.
func (r *Redis) lock(ctx context.Context, s script, mistake, refusal error, name string, args ...any) error {
	return r.files(ctx, opLock, mistake, func() error {
		reply, err := s.run(ctx, r.again, []string{r.lockKey(name)}, args...)
		switch {
		case err != nil:
			return failed(ctx, opLock, err)
		case reply == int64(1):
			return nil
		case reply == int64(0):
			return refusal
		}
		return unexpected(opLock)
	})
}
