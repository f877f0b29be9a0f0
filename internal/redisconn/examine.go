package redisconn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/version"
)

// Finding is one thing found out about a server. Health is one of transport.Health's words, which this package must not
// know.
type Finding struct {
	Subject, Health, Detail, Advice string
}

const (
	ok      = "ok"
	warning = "warning"
	wrong   = "error"
	unknown = "unknown"
)

// ExamineOptions say what a server is for.
type ExamineOptions struct {
	// Holds is what it keeps, "messages" or "results". Losing results is a warning, losing messages an error.
	Holds string
	// Commands are those its user must be allowed, with example arguments. None is run.
	Commands [][]any
}

// Examine looks at a server for what makes it lose what it holds: version, persistence, memory, replication, rights. An
// error means that it does not answer; what it does not tell is unknown.
func (c *Config) Examine(ctx context.Context, client redis.UniversalClient, o ExamineOptions) ([]Finding, error) {
	began := time.Now()
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, err
	}
	x := &examination{client: client, holds: o.Holds, loss: wrong}
	if o.Holds == "results" {
		x.loss = warning
	}
	x.add("connection", ok, c.Redacted()+" answers in "+time.Since(began).Round(10*time.Microsecond).String(), "")
	text, err := client.Info(ctx).Result()
	if err != nil && Classify(err) != Fatal {
		return nil, err
	}
	x.info, x.refusal = parseInfo(text), err
	x.version()
	x.persistence(ctx)
	x.memory()
	x.replication()
	x.rights(ctx, o.Commands)
	return x.found, nil
}

type examination struct {
	client  redis.UniversalClient
	holds   string
	loss    string // how bad it is to lose that
	info    map[string]string
	refusal error // why there is no info
	found   []Finding
}

func (x *examination) add(subject, health, detail, advice string) {
	x.found = append(x.found, Finding{subject, health, detail, advice})
}

// told tells whether INFO has a field, and makes the subject unknown if not.
func (x *examination) told(subject, field string) bool {
	if _, has := x.info[field]; has {
		return true
	}
	why := "INFO does not tell " + field
	if x.refusal != nil {
		why = "INFO: " + x.refusal.Error()
	}
	x.add(subject, unknown, why, "")
	return false
}

func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if key, v, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			info[key] = v
		}
	}
	return info
}

func (x *examination) version() {
	if !x.told("version", "redis_version") {
		return
	}
	name, text := "Redis", x.info["redis_version"]
	if v := x.info["valkey_version"]; v != "" {
		name, text = "Valkey", v
	}
	v, known := version.Parse(text)
	switch {
	case !known:
		x.add("version", unknown, name+" "+text, "")
	case name == "Redis" && v.Before(6, 2, 0):
		x.add("version", warning, "Redis "+text+" has no BLMOVE, so that waiting workers poll", "upgrade to a version with support")
	case name == "Redis" && hasLuaHole(v):
		x.add("version", warning, "Redis "+text+" lets whoever may run scripts break out of them (CVE-2025-49844)",
			"upgrade, or make sure that your distribution has mended it")
	default:
		x.add("version", ok, name+" "+text, "")
	}
}

// hasLuaHole: CVE-2025-49844 was mended in 6.2.20, 7.2.11, 7.4.6, 8.0.4 and 8.2.2.
func hasLuaHole(v version.Version) bool {
	return v.Within(6, 2, 20) || v[0] == 7 && v.Before(7, 2, 11) || v.Within(7, 4, 6) || v.Within(8, 0, 4) || v.Within(8, 2, 2)
}

const appendOnly = "set appendonly yes and appendfsync everysec, in redis.conf and with CONFIG SET"

// persistence: measured with 5,000 messages and SIGKILL, neither no persistence nor snapshots kept one, an append-only
// file kept all.
func (x *examination) persistence(ctx context.Context) {
	if !x.told("persistence", "aof_enabled") {
		return
	}
	save, saveErr := x.setting(ctx, "save")
	if x.info["aof_enabled"] != "1" {
		switch {
		case saveErr != nil:
			x.add("persistence", warning, "no append-only file: "+x.holds+" may be lost when Redis dies", appendOnly)
		case save == "":
			x.add("persistence", x.loss, "none: all "+x.holds+" are lost when Redis stops", appendOnly)
		case x.info["rdb_last_bgsave_status"] == "err":
			x.add("persistence", wrong, "the last snapshot could not be written; Redis refuses writes until one can",
				"see Redis's log; make room on its disk")
		default:
			x.add("persistence", warning,
				"snapshots only (save "+save+"): "+x.holds+" since the last one are lost when Redis dies", appendOnly)
		}
		return
	}
	sync, err := x.setting(ctx, "appendfsync")
	switch {
	case x.info["aof_last_write_status"] == "err":
		x.add("persistence", wrong, "the append-only file could not be written; Redis refuses writes until it can",
			"see Redis's log; make room on its disk")
	case err != nil:
		x.add("persistence", ok, "append-only file", "")
	case sync == "no":
		x.add("persistence", warning, "append-only file, written whenever the system likes (appendfsync no)", appendOnly)
	case sync == "everysec":
		x.add("persistence", ok, "append-only file, written every second: the death of Redis costs nothing, a power cut a second", "")
	default:
		x.add("persistence", ok, "append-only file, appendfsync "+sync, "")
	}
}

// setting reads one setting, which managed services do not let everybody do.
func (x *examination) setting(ctx context.Context, name string) (string, error) {
	m, err := x.client.ConfigGet(ctx, name).Result()
	if err != nil {
		return "", err
	}
	v, found := m[name]
	if !found {
		return "", errors.New("there is no setting " + name)
	}
	return v, nil
}

func (x *examination) memory() {
	if !x.told("memory", "maxmemory_policy") {
		return
	}
	used, _ := strconv.ParseInt(x.info["used_memory"], 10, 64)
	limit, _ := strconv.ParseInt(x.info["maxmemory"], 10, 64)
	policy := x.info["maxmemory_policy"]
	usage := fmt.Sprintf("%d MiB used, no limit", used>>20)
	if limit > 0 {
		usage = fmt.Sprintf("%d of %d MiB used (%d %%)", used>>20, limit>>20, used*100/limit)
	}
	const makeRoom = "let workers empty the queues, shorten result_expires, or raise maxmemory"
	switch {
	case policy != "noeviction":
		x.add("memory", x.loss, usage+"; the policy "+policy+" throws keys away when memory runs out, queues or results among them",
			"CONFIG SET maxmemory-policy noeviction, and the same in redis.conf")
	case limit > 0 && used >= limit:
		x.add("memory", wrong, usage+"; Redis refuses "+x.holds, makeRoom)
	case limit > 0 && used >= limit/10*8:
		x.add("memory", warning, usage+"; when it is full Redis refuses "+x.holds, makeRoom)
	default:
		x.add("memory", ok, usage+", nothing is evicted", "")
	}
}

func (x *examination) replication() {
	if !x.told("replication", "role") {
		return
	}
	if x.info["role"] != "master" {
		x.add("replication", wrong,
			fmt.Sprintf("this is a replica of %s:%s, which takes no writes", x.info["master_host"], x.info["master_port"]),
			"give the URL of the master, or the Sentinels' (sentinel://)")
		return
	}
	switch x.info["connected_slaves"] {
	case "0", "":
		x.add("replication", ok, "master without replicas", "")
	default:
		x.add("replication", ok, "master, replicas: "+x.info["connected_slaves"]+"; what they have not got yet is lost in a failover", "")
	}
}

// rights asks Redis 7 and later whether the user may run the commands.
func (x *examination) rights(ctx context.Context, commands [][]any) {
	user, err := x.client.Do(ctx, "ACL", "WHOAMI").Text()
	if err != nil {
		x.add("permissions", unknown, "ACL WHOAMI: "+err.Error(), "")
		return
	}
	pipe := x.client.Pipeline()
	answers := make([]*redis.Cmd, len(commands))
	for i, c := range commands {
		answers[i] = pipe.Do(ctx, append([]any{"ACL", "DRYRUN", user}, c...)...)
	}
	_, _ = pipe.Exec(ctx) // each answer has its own error
	var refused []string
	for i, a := range answers {
		said, err := a.Text()
		if err != nil {
			x.add("permissions", unknown, "ACL DRYRUN: "+err.Error(), "")
			return
		}
		if said != "OK" {
			refused = append(refused, strings.TrimSpace(fmt.Sprintln(commands[i]...))+" ("+said+")")
		}
	}
	if len(refused) > 0 {
		x.add("permissions", wrong, fmt.Sprintf("user %s may not %s", user, strings.Join(refused, "; ")),
			"grant it with ACL SETUSER "+user)
		return
	}
	x.add("permissions", ok, fmt.Sprintf("user %s may do all that is needed", user), "")
}
