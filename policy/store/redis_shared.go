package store

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// sharedKey is the one hash of a kind: its fields are the names. What is in braces is its hash slot.
func (r *Redis) sharedKey(kind Kind) string { return r.prefix + ":shared:{" + string(kind) + "}" }

// Shared is Shared.Shared.
func (r *Redis) Shared(ctx context.Context, kind Kind) (map[string]Versioned, error) {
	start := time.Now()
	all, err := r.sharedValues(ctx, kind)
	r.meter.done(opShared, err, start)
	return all, err
}

func (r *Redis) sharedValues(ctx context.Context, kind Kind) (map[string]Versioned, error) {
	if err := r.begin(ctx, opShared, checkKind(opShared, kind)); err != nil {
		return nil, err
	}
	fields, err := r.again.HGetAll(ctx, r.sharedKey(kind)).Result()
	if err != nil {
		return nil, failed(ctx, opShared, err)
	}
	all := make(map[string]Versioned, len(fields))
	for name, field := range fields {
		v, err := parseShared(field)
		if err != nil {
			v = Versioned{Value: []byte(field)}
		}
		all[name] = v
	}
	return all, nil
}

// sharedVersionDigits leads each field: the version, in decimal.
const sharedVersionDigits = 16

func parseShared(field string) (Versioned, error) {
	if len(field) < sharedVersionDigits {
		return Versioned{}, errShared
	}
	version, err := strconv.ParseUint(field[:sharedVersionDigits], 10, 64)
	if err != nil || version == 0 || version > MaxVersion {
		return Versioned{}, errShared
	}
	return Versioned{[]byte(field[sharedVersionDigits:]), version}, nil
}

// Raise is Shared.Raise.
func (r *Redis) Raise(ctx context.Context, kind Kind, name string, v Versioned) error {
	start := time.Now()
	err := r.begin(ctx, opRaise, checkRaise(kind, name, v))
	if err == nil {
		err = r.raise(ctx, kind, name, v)
	}
	r.meter.done(opRaise, err, start)
	return err
}

func (r *Redis) raise(ctx context.Context, kind Kind, name string, v Versioned) error {
	args := []any{name, fmt.Sprintf("%0*d", sharedVersionDigits, v.Version), v.Value}
	reply, short, err := r.run(ctx, r.again, opRaise, raiseScript, []string{r.sharedKey(kind)}, args)
	if err != nil {
		return failed(ctx, opRaise, err)
	}
	switch reply {
	case int64(1):
		return short
	case int64(0):
		return ErrExists
	}
	return unexpected(opRaise)
}
