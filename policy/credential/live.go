package credential

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// A live record is version(1) expiry(8, Unix ms, big endian) MAC(32), the MAC
// over label, digest and expiry; of a generation that is not 0, version 2, with
// the generation (8) after the expiry and in the MAC: whoever writes to the store can end what it
// stands for, but neither begin nor extend it. Who has read a record before it
// ended can put it back until it would have been over.
const (
	liveVersion          = 1
	liveGenerationFormat = 2
	liveRecordBytes      = 1 + 8 + 32
)

// live is what begins, lasts for a time, and can be ended before: logins, and
// families of refresh tokens. Each is named by a value, of which the store has
// a keyed digest alone. All fields are required.
type live struct {
	kind        store.Kind
	label       string       // begins what the digest is made of; face and value follow
	recordLabel string       // begins what a record's MAC is made of
	face        string       // it lives at that face alone
	macs        []policy.MAC // the primary first
	records     store.Records
	now         func() time.Time
}

// begin makes the value live for ttl from now, in place of what it had left, of
// its partner's generation.
func (l *live) begin(ctx context.Context, value string, ttl time.Duration, generation uint64) error {
	mac := l.macs[0]
	digest := l.digest(mac, value)
	return l.records.Put(ctx, l.kind, digest, l.record(mac, digest, l.now().Add(ttl).UnixMilli(), generation), ttl)
}

// check returns the generation of a value that is live, under whichever key it began.
// Otherwise the credential's kind is refused as "login". Failures of the store
// pass through.
func (l *live) check(ctx context.Context, kind policy.Kind, value string) (generation uint64, err error) {
	for _, mac := range l.macs {
		digest := l.digest(mac, value)
		record, err := l.records.Get(ctx, l.kind, digest)
		switch {
		case errors.Is(err, store.ErrUnknown):
			continue
		case err != nil:
			return 0, fmt.Errorf("live record: %w", err)
		}
		return l.judge(kind, mac, digest, record)
	}
	return 0, refuse(kind, policy.RefusedLogin, "nobody is logged in with it")
}

// judge refuses a record that is over, or that we did not write.
func (l *live) judge(kind policy.Kind, mac policy.MAC, digest store.Digest, record []byte) (generation uint64, err error) {
	switch {
	case len(record) == liveRecordBytes && record[0] == liveVersion:
	case len(record) == liveRecordBytes+8 && record[0] == liveGenerationFormat:
		generation = binary.BigEndian.Uint64(record[1+8:])
	default:
		return 0, refuse(kind, policy.RefusedLogin, "the live record is not ours")
	}
	expires := int64(binary.BigEndian.Uint64(record[1:]))
	if subtle.ConstantTimeCompare(record, l.record(mac, digest, expires, generation)) != 1 {
		return 0, refuse(kind, policy.RefusedLogin, "the live record is not ours")
	}
	if l.now().UnixMilli() >= expires {
		return 0, refuse(kind, policy.RefusedLogin, "the login is over")
	}
	return generation, nil
}

// end ends the value, under whichever key it began. It is no error if it was
// not live.
func (l *live) end(ctx context.Context, value string) error {
	for _, mac := range l.macs {
		if err := l.records.Delete(ctx, l.kind, l.digest(mac, value)); err != nil {
			return err
		}
	}
	return nil
}

// digest is where the record of a value is kept. The face's length stands
// before it, so that no face and value run into each other.
func (l *live) digest(mac policy.MAC, value string) store.Digest {
	message := make([]byte, 0, len(l.label)+2+len(l.face)+len(value))
	message = append(message, l.label...)
	message = binary.BigEndian.AppendUint16(message, uint16(len(l.face)))
	message = append(message, l.face...)
	message = append(message, value...)
	return store.Digest(mac.MAC(nil, message))
}

func (l *live) record(mac policy.MAC, digest store.Digest, expires int64, generation uint64) []byte {
	record := make([]byte, 0, liveRecordBytes+8)
	record = append(record, liveVersion)
	record = binary.BigEndian.AppendUint64(record, uint64(expires))
	if generation != 0 {
		record[0] = liveGenerationFormat
		record = binary.BigEndian.AppendUint64(record, generation)
	}
	message := make([]byte, 0, len(l.recordLabel)+len(digest)+8+8)
	message = append(append(message, l.recordLabel...), digest[:]...)
	return mac.MAC(record, append(message, record[1:]...))
}
