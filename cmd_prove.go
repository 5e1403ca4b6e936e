package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/internal/drill"
	"github.com/cardstile/cardstile/policy/store"
)

// proving is what `cardstile prove` is asked for.
type proving struct {
	config                         string
	redis                          store.RedisConfig
	useTLS                         bool
	ca, certificate, key, hostname string
	quorum                         int
	length                         time.Duration
	workers                        int
	seed                           uint64
	faults                         []string
	asJSON                         bool
}

func cmdProve() *cobra.Command {
	var p proving
	cmd := &cobra.Command{
		Use: "prove", Short: "Try a Redis: is each token redeemed once, whatever breaks",
		Args: func(cmd *cobra.Command, args []string) error { return exitWith(2, cobra.NoArgs(cmd, args)) },
		Long: "Prove has two gateways' stores mint and redeem tokens in a Redis, over connections that break in\n" +
			"the middle of a reply, stall, slow down and go dark, and then judges what each call was told: no\n" +
			"token may be given to two, and none that was acknowledged may be lost while the primary that\n" +
			"minted it lasts. Several addresses are the nodes of a Cluster, or the Sentinels with --master.\n" +
			"\n" +
			"It needs a Redis of its own: one that has keys is refused and left as it is. It removes what it\n" +
			"wrote, also when it is interrupted.\n" +
			"\n" +
			"It does no harm to the servers by itself. --fault does: a command for sh, run now and then while\n" +
			"the gateways are at work. That is how a failover is tried.\n" +
			"\n" +
			"It exits with 0 where single use held, 1 where it was violated, and 2 where it could not be tried.",
		Example: "  cardstile prove --redis 127.0.0.1:6379 --for 30s\n" +
			"  cardstile prove --redis sentinel-1:26379,sentinel-2:26379 --master mymaster \\\n" +
			"    --fault 'redis-cli -h sentinel-1 -p 26379 sentinel failover mymaster'\n" +
			"  cardstile prove --config config.yaml --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.drill(cmd)
			if err != nil {
				return exitWith(2, err)
			}
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			context.AfterFunc(ctx, cancel) // the second signal ends the process where it stands
			return prove(ctx, c, p.asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitWith(2, err) })
	f := cmd.Flags()
	f.StringSliceVar(&p.redis.Addresses, "redis", nil, "host:port of the server, of the Sentinels, or of nodes of the Cluster")
	f.StringVar(&p.config, "config", "", "take store.redis of this configuration, in place of the flags that say where Redis is and how to log in")
	f.StringVar(&p.redis.MasterName, "master", "", "the name under which Sentinels know the primary")
	f.StringVar(&p.redis.SentinelUsername, "sentinel-username", "", "ACL user of the Sentinels")
	f.StringVar(&p.redis.SentinelPasswordFile, "sentinel-password-file", "", "file with the Sentinels' password")
	f.StringVar(&p.redis.Username, "username", "", "ACL user")
	f.StringVar(&p.redis.PasswordFile, "password-file", "", "file with the password")
	f.BoolVar(&p.useTLS, "tls", false, "connect by TLS; the four flags below imply it")
	f.StringVar(&p.ca, "ca", "", "PEM file with the authorities of the server's certificate")
	f.StringVar(&p.certificate, "cert", "", "PEM file with a client certificate")
	f.StringVar(&p.key, "key", "", "PEM file with its private key")
	f.StringVar(&p.hostname, "server-name", "", "the name in the server's certificate")
	f.IntVar(&p.redis.DB, "db", 0, "number of the database")
	f.StringVar(&p.redis.Prefix, "prefix", "", "what every key begins with (default cardstile)")
	f.IntVar(&p.quorum, "quorum", 0, "have so many replicas acknowledge, as fence: quorum does")
	f.DurationVar(&p.length, "for", time.Minute, "how long the gateways are at work")
	f.IntVar(&p.workers, "workers", 16, "how many calls there are at once, of both gateways together")
	f.Uint64Var(&p.seed, "seed", 0, "draw the same faults again (default: others each time)")
	f.StringArrayVar(&p.faults, "fault", nil, "a command for sh that does harm; several take turns")
	f.BoolVar(&p.asJSON, "json", false, "report as one JSON document")
	f.SortFlags = false
	return cmd
}

// whereRedisIs are the flags that --config stands in for.
var whereRedisIs = []string{"redis", "master", "sentinel-username", "sentinel-password-file", "username", "password-file", "tls", "ca", "cert", "key", "server-name", "db", "prefix", "quorum"}

// drill is what the flags say, checked.
func (p *proving) drill(cmd *cobra.Command) (drill.Config, error) {
	c := drill.Config{Redis: p.redis, For: p.length, Workers: p.workers, Seed: p.seed}
	switch {
	case p.length < time.Second:
		return c, errors.New("--for: want 1s or more")
	case p.workers < 2 || p.workers > 1000:
		return c, errors.New("--workers: want 2 to 1000")
	case p.config == "" && len(p.redis.Addresses) == 0:
		return c, errors.New("want --redis host:port, or --config")
	}
	c.Fault = harm(p.faults)
	if !cmd.Flags().Changed("seed") {
		c.Seed = uint64(time.Now().UnixNano()) % 1_000_000 // short enough to be typed
	}
	if p.config != "" {
		for _, name := range whereRedisIs {
			if cmd.Flags().Changed(name) {
				return c, fmt.Errorf("--%s: --config says where Redis is", name)
			}
		}
		b, err := loadSteps(p.config, (*builder).loadEnvironment, (*builder).loadStore, (*builder).checkRedis)
		if err != nil {
			return c, err
		}
		if b.redis == nil {
			return c, fmt.Errorf("%s: it has no store.redis", p.config)
		}
		c.Redis = *b.redis
		return c, nil
	}
	if p.quorum != 0 {
		c.Redis.Quorum = &store.Quorum{Replicas: p.quorum}
	}
	var err error
	c.Redis.TLS, err = p.tls()
	return c, err
}

// tls is nil where no flag asks for it.
func (p *proving) tls() (*tls.Config, error) {
	if !p.useTLS && cmp.Or(p.ca, p.certificate, p.key, p.hostname) == "" {
		return nil, nil
	}
	c := gateway.ClientTLS(nil)
	c.ServerName = p.hostname
	if p.ca != "" {
		content, err := os.ReadFile(p.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("--ca: %s: no certificate", p.ca)
		}
	}
	if p.certificate != "" || p.key != "" {
		if p.certificate == "" || p.key == "" {
			return nil, errors.New("--cert, --key: want both")
		}
		pair, err := tls.LoadX509KeyPair(p.certificate, p.key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// harm runs the commands in turn, one each time. What they are is not told: a password may be in one.
func harm(commands []string) func(context.Context) (string, error) {
	if len(commands) == 0 {
		return nil
	}
	next := 0
	return func(ctx context.Context) (string, error) {
		name := "--fault"
		if len(commands) > 1 {
			name = fmt.Sprintf("--fault number %d", next%len(commands)+1)
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", commands[next%len(commands)])
		next++
		cmd.WaitDelay = time.Second // for what it leaves behind in the background
		output, err := cmd.CombinedOutput()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		const most = 200
		if words := strings.Join(strings.Fields(string(output)), " "); words != "" {
			name += ": " + words[:min(len(words), most)]
		}
		return name, err
	}
}

// prove runs the drill and reports. Its error has the exit code.
func prove(ctx context.Context, c drill.Config, asJSON bool, out, progress io.Writer) error {
	var one sync.Mutex
	c.Say = func(at time.Duration, what string) {
		one.Lock()
		defer one.Unlock()
		fmt.Fprintf(progress, "%7.1f s  %s\n", at.Seconds(), what)
	}
	report, err := drill.Run(ctx, c)
	if err != nil {
		return exitWith(2, err)
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(report)
	} else {
		_, err = io.WriteString(out, reportText(report))
	}
	switch {
	case err != nil:
		return exitWith(2, err)
	case report.Verdict == drill.Violated:
		return errSaid
	case report.Verdict != drill.Held:
		return exitWith(2, errSaid)
	}
	return nil
}
