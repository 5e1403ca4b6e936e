package store

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// run runs a script. Its error is go-redis's. Where a quorum is configured, short says that too few replicas acknowledged
// what it wrote, or nil: the caller returns it in place of a success, and in place of "spent".
func (r *Redis) run(
	ctx context.Context, client redis.UniversalClient, op operation, s script, keys []string, args []any,
) (reply any, short, err error) {
	if r.quorum == nil {
		reply, err = s.run(ctx, client, keys, args...)
		return reply, nil, err
	}
	cmd, short, err := r.acknowledged(ctx, op, keys[0], func(p redis.Pipeliner) redis.Cmder { return p.EvalSha(ctx, s.sha, keys, args...) })
	if errors.Is(err, redis.ErrNoScript) {
		cmd, short, err = r.acknowledged(ctx, op, keys[0], func(p redis.Pipeliner) redis.Cmder { return p.Eval(ctx, s.source, keys, args...) })
	}
	if err != nil {
		return nil, nil, err
	}
	return cmd.(*redis.Cmd).Val(), short, nil
}

// acknowledged sends a command on key, and WAIT after it on the same connection, where alone it means that command. err is
// the command's own, or the network's; short says that what it wrote is not on as many replicas as it must be.
//
// Nothing is sent twice: whether an operation may be repeated decides its caller.
func (r *Redis) acknowledged(
	ctx context.Context, op operation, key string, command func(redis.Pipeliner) redis.Cmder,
) (cmd redis.Cmder, short, err error) {
	client := r.once
	if cluster, ok := client.(*redis.ClusterClient); ok { // WAIT has no key by which it would find the way
		node, err := cluster.MasterForKey(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		client = node
	}
	p := client.Pipeline()
	cmd = command(p)
	wait := p.Do(ctx, "wait", r.quorum.Replicas, r.quorum.Timeout.Milliseconds())
	_, _ = p.Exec(ctx) // its error is one of the two's
	n, waited := wait.Int64()
	switch err := cmd.Err(); {
	case err != nil:
		if cluster, ok := r.once.(*redis.ClusterClient); ok && redis.HasErrorPrefix(err, "MOVED") {
			cluster.ReloadState(ctx) // what we know of it is out of date
		}
		return nil, nil, err
	case waited != nil: // the reply was lost, or WAIT refused: nobody knows
		return cmd, failed(ctx, op, waited), nil
	case n < int64(r.quorum.Replicas):
		return cmd, &Unavailable{Store: "redis", Operation: op.String(), Reason: ReasonReplicas}, nil
	}
	return cmd, nil, nil
}
