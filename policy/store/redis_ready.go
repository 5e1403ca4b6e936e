package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Ready returns nil where the server answers, is a primary that can be written to, lets scripts and this user do all
// that the store needs, and evicts nothing [7]. Otherwise the error says which of these fails and how to mend it.
func (r *Redis) Ready(ctx context.Context) error {
	start := time.Now()
	err := r.ready(ctx)
	r.meter.done(opReady, err, start)
	return err
}

func (r *Redis) ready(ctx context.Context) error {
	if err := r.begin(ctx, opReady, nil); err != nil {
		return err
	}
	if err := r.once.Ping(ctx).Err(); err != nil {
		return r.wrong(ctx, err)
	}
	reply, short, err := r.run(ctx, r.once, opReady, probeScript, []string{r.prefix + ":probe"}, nil)
	if err != nil {
		return r.wrong(ctx, err)
	}
	if short != nil {
		return r.notEnoughReplicas(ctx, short)
	}
	fields, ok := reply.([]any)
	if !ok || len(fields) == 0 {
		return r.notReady(ReasonReply, "the probe's reply has another shape: is this Redis 7.0 or later?")
	}
	text := func(i int) string {
		if i >= len(fields) {
			return ""
		}
		s, _ := fields[i].(string)
		return s
	}
	switch role := text(0); {
	case role == "master":
	case role == "noinfo" && r.quorum != nil: // that is what it is for
	case role == "noinfo":
		return r.notReady(ReasonPermission, "scripts cannot read INFO, which names the tenure that fences tokens: "+r.grant("+info")+
			", or, where no user can be allowed that, have replicas acknowledge instead: fence: quorum")
	default:
		return r.notReady(ReasonReadOnly, fmt.Sprintf("its role is %q: point the store at the primary, or name the Sentinels' master", role))
	}
	if r.quorum == nil && len(text(1)) != 40 {
		return r.notReady(ReasonReply, "INFO replication has no master_replid: is this Redis 7.0 or later? Where it is, use fence: quorum")
	}
	return r.checkEviction(ctx, text(2))
}

// notEnoughReplicas explains a quorum that there is not.
func (r *Redis) notEnoughReplicas(ctx context.Context, short error) error {
	if u, ok := errors.AsType[*Unavailable](short); !ok || u.Reason != ReasonReplicas {
		return fmt.Errorf("redis %s: %w", r.addresses, short)
	}
	return r.notReady(ReasonReplicas, fmt.Sprintf("a write was not acknowledged by the quorum of %d within %v, so that nothing is released: is a replica down, or behind?",
		r.quorum.Replicas, r.quorum.Timeout))
}

// checkEviction requires maxmemory-policy noeviction: under any other a spent record may be evicted. policy is what INFO
// memory said, empty where it was refused. What cannot be read counts as wrong.
func (r *Redis) checkEviction(ctx context.Context, policy string) error {
	if policy == "" { // not in a script; by itself, perhaps
		_, rest, _ := strings.Cut(r.once.Info(ctx, "memory").Val(), "maxmemory_policy:")
		policy, _, _ = strings.Cut(rest, "\r\n")
	}
	if policy == "" {
		const name = "maxmemory-policy"
		values, err := r.once.ConfigGet(ctx, name).Result()
		if _, replied := errors.AsType[redis.Error](err); err != nil && !replied {
			return r.wrong(ctx, err)
		}
		policy = values[name]
	}
	switch policy {
	case "noeviction":
		return nil
	case "":
		return r.notReady(ReasonPermission, "maxmemory-policy could not be checked, by INFO memory nor by CONFIG GET: "+r.grant("+info"))
	default:
		return r.notReady(ReasonEviction, fmt.Sprintf("maxmemory-policy is %q, so that it may forget what was spent: set maxmemory-policy noeviction", policy))
	}
}

// grant says what to do about a permission that the user lacks.
func (r *Redis) grant(rule string) string {
	user := r.username
	if user == "" {
		user = "default"
	}
	return fmt.Sprintf("ACL SETUSER %s %s", user, rule)
}

// wrong explains a failure to an operator.
func (r *Redis) wrong(ctx context.Context, err error) error {
	u := failed(ctx, opReady, err)
	why := ""
	switch u.Reason {
	case ReasonDial, ReasonTLS, ReasonPassword:
		why = err.Error() // the network's, the certificate's or the file's own words: addresses and names, no values
	case ReasonTimeout:
		why = "it does not answer in time: is it overloaded, stopped, behind a firewall, or does one side speak TLS and the other not?"
	case ReasonConnection:
		why = "it closed the connection: does it speak TLS where the store does not?"
	case ReasonAuth:
		why = "user name or password refused: compare the password file with the server's ACL"
		if r.passwordFile == "" {
			why = "it asks for a password: set a password file"
		}
	case ReasonPermission:
		why = "the user lacks a permission: " + r.grant(AccessRules(r.prefix))
	case ReasonReadOnly:
		why = "it is a replica: point the store at the primary, or name the Sentinels' master"
	case ReasonFull:
		why = "it is out of memory: raise maxmemory, and keep maxmemory-policy noeviction"
	case ReasonPersist:
		why = "it cannot write to its disk, and refuses writes until it can: see its log"
	case ReasonLoading:
		why = "it is loading its data"
	case ReasonReply:
		why = "it refused the probe script: is this Redis 7.0 or later?"
	default:
		return fmt.Errorf("redis %s: %w", r.addresses, u)
	}
	return fmt.Errorf("redis %s: %w: %s", r.addresses, u, why)
}

func (r *Redis) notReady(reason Reason, why string) error {
	u := &Unavailable{Store: "redis", Operation: opReady.String(), Reason: reason}
	return fmt.Errorf("redis %s: %w: %s", r.addresses, u, why)
}
