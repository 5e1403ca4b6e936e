package revocation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"net/url"
	"time"

	"golang.org/x/crypto/ocsp"
)

// This file is what is remembered of certificates, and for how long.

// adopt takes over what another one knows.
func (r *responders) adopt(old *responders) {
	old.mu.Lock()
	defer old.mu.Unlock()
	maps.Copy(r.questions, old.questions)
	maps.Copy(r.rooms, old.rooms)
}

// question finds that about the i-th certificate of a chain, or begins one.
func (r *responders) question(chain []*x509.Certificate, i int, responder *url.URL, now time.Time) *question {
	c, issuer, anchor := chain[i], chain[i+1], sha256.Sum256(chain[len(chain)-1].Raw)
	key := questionKey{issuerID(issuer), string(c.SerialNumber.Bytes())}
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.questions[key]
	if q == nil {
		r.makeRoom()
		if i+2 < len(chain) { // the anchor is ours
			issuer = copied(issuer)
		}
		if r.rooms[anchor] == nil {
			r.rooms[anchor] = make(chan struct{}, maxAsking)
		}
		q = &question{serial: c.SerialNumber, end: c.NotAfter, issuer: issuer, responder: responder, room: r.rooms[anchor]}
		r.questions[key] = q
	}
	q.used.Store(now.UnixNano())
	return q
}

// copied is a certificate without the message that it came in, of which crypto/tls makes it a part.
func copied(c *x509.Certificate) *x509.Certificate {
	own, err := x509.ParseCertificate(bytes.Clone(c.Raw))
	if err != nil {
		panic("revocation: internal error: a certificate does not parse again")
	}
	return own
}

// makeRoom forgets the certificate that was not judged for the longest time, of some that are looked at; one that is revoked where
// there is no other. The caller holds mu.
func (r *responders) makeRoom() {
	if len(r.questions) < r.most {
		return
	}
	var oldest questionKey
	looked, at, revoked := 0, int64(0), true
	for key, q := range r.questions {
		v := q.last.Load()
		is := v != nil && v.status == ocsp.Revoked
		if used := q.used.Load(); looked == 0 || revoked && !is || revoked == is && used < at {
			oldest, at, revoked = key, used, is
		}
		if looked++; looked == 64 {
			break
		}
	}
	delete(r.questions, oldest)
}

// stale reports whether somebody is to be asked before the question can be answered.
func (q *question) stale(now time.Time) bool {
	if now.UnixNano() < q.retry.Load() {
		return false
	}
	v := q.last.Load()
	return v == nil || v.status != ocsp.Revoked && !now.Before(v.until)
}

// again is when it is worth while to ask again, after there was no answer.
func (q *question) again(now time.Time) time.Time {
	if retry := time.Unix(0, q.retry.Load()); retry.After(now) {
		return retry
	}
	return now.Add(time.Second)
}

// keep asks again about certificates that are in use, before what is known of them ends, until ctx ends.
func (r *responders) keep(ctx context.Context) {
	tick := time.NewTicker(max(min(r.c.config.Refresh/16, time.Second), 5*time.Millisecond))
	defer tick.Stop()
	defer r.named.close()
	if r.configured != nil {
		defer r.configured.close()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := r.c.services.Now()
		for _, q := range r.due(now) {
			r.ask(q)
		}
	}
}

// due are the certificates to be asked about now, of each trust anchor as many as can be at a time. Those that nobody has used for long are forgotten.
func (r *responders) due(now time.Time) (due []*question) {
	asked := map[chan struct{}]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, q := range r.questions {
		v := q.last.Load()
		switch {
		case now.Sub(time.Unix(0, q.used.Load())) > keepAsking:
			if v == nil || v.status != ocsp.Revoked || now.After(q.end) {
				delete(r.questions, key)
			}
		case now.UnixNano() < q.retry.Load() || v != nil && now.Before(v.due):
		case asked[q.room] < maxAsking:
			asked[q.room]++
			due = append(due, q)
		}
	}
	return due
}
