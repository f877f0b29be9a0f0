package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/internal/version"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

var _ transport.Examiner = (*rabbitTransport)(nil)

// examineTimeout bounds the question whether the broker takes a message.
const examineTimeout = 3 * time.Second

// maxRights is for how many queues the user's rights are found out: it costs three channels each.
const maxRights = 500

// examination is one run of Examine.
type examination struct {
	t          *rabbitTransport
	management *management
	nodes      []nodeInfo // nil: not told
	found      []transport.Finding
}

func (x *examination) add(subject string, health transport.Health, detail, advice string) {
	x.found = append(x.found, transport.Finding{Subject: subject, Health: health, Detail: detail, Advice: advice})
}

// Examine implements transport.Examiner. What only the management API can tell is Unknown without it.
func (t *rabbitTransport) Examine(ctx context.Context, queues []string) ([]transport.Finding, error) {
	m, err := t.management()
	if err != nil {
		return nil, err
	}
	x := &examination{t: t, management: m}
	began := time.Now()
	if err := t.onChannel(ctx, "open a channel", func(*amqp.Channel) error { return nil }); err != nil {
		return nil, err
	}
	e, took := t.endpoint(), time.Since(began).Round(10*time.Microsecond)
	x.add("connection", transport.Healthy, fmt.Sprintf("%s, virtual host %s, opens a channel in %v", e.address(), e.vhost, took), "")
	x.version()
	if x.managed(ctx) {
		x.alarms(ctx)
		x.cluster(ctx)
	}
	if err := x.queues(ctx, queues); err != nil {
		return nil, err
	}
	x.publishing(ctx) // last: an alarm stops the connection that has published
	return x.found, nil
}

func (x *examination) version() {
	properties := x.t.serverProperties()
	product, _ := properties["product"].(string)
	text, _ := properties["version"].(string)
	health, detail, advice := judgeVersion(product, text)
	x.add("version", health, detail, advice)
}

func judgeVersion(product, text string) (health transport.Health, detail, advice string) {
	v, known := version.Parse(text)
	switch detail = product + " " + text; {
	case product != "RabbitMQ" || !known:
		return transport.Unknown, detail + " is not known here", ""
	case v.Before(3, 8, 0):
		return transport.Doubtful, detail + " has no quorum queues and gets no more repairs", "upgrade to a version with support"
	case v.Before(3, 11, 24), v.Within(3, 12, 11):
		return transport.Doubtful, detail + " has known holes in its management API (CVE-2023-46118, CVE-2024-51988)",
			"upgrade, or make sure that your distribution has mended them"
	}
	return transport.Healthy, detail, ""
}

// managed tells whether the management plugin answers us.
func (x *examination) managed(ctx context.Context) bool {
	var who struct{ Name string }
	err := x.management.get(ctx, "whoami", nil, &who)
	switch {
	case err == nil:
		x.add("management", transport.Healthy, "the plugin answers at "+x.management.base, "")
		return true
	case refusedBy(err):
		x.add("management", transport.Unknown, err.Error()+"; "+untold,
			"give the user the tag monitoring, or name another user in the transport option management_url")
	default:
		x.add("management", transport.Unknown, err.Error()+"; "+untold, "")
	}
	return false
}

const untold = "without it alarms, nodes and the types of queues are not examined"

// alarms asks for what makes the broker stop taking messages.
func (x *examination) alarms(ctx context.Context) {
	var check struct {
		Alarms []struct{ Node, Resource string }
	}
	err := x.management.get(ctx, "health/checks/alarms", nil, &check)
	if err == nil {
		x.add("alarms", transport.Healthy, "none", "")
		return
	}
	if len(check.Alarms) == 0 {
		x.add("alarms", transport.Unknown, err.Error(), "")
		return
	}
	names := make([]string, len(check.Alarms))
	for i, a := range check.Alarms {
		names[i] = a.Resource + " on " + a.Node
	}
	x.add("alarms", transport.Broken, "no publisher of the cluster is served: "+strings.Join(names, ", "),
		"let workers empty the queues, add memory or disk, or raise vm_memory_high_watermark or disk_free_limit with care")
}

// nodeInfo is what the API tells of a node.
type nodeInfo struct {
	Name       string
	Running    bool
	Partitions []string // the nodes it has lost
}

func (x *examination) cluster(ctx context.Context) {
	var nodes []nodeInfo
	if err := x.management.get(ctx, "nodes", map[string][]string{"columns": {"name,running,partitions"}}, &nodes); err != nil {
		advice := ""
		if refusedBy(err) {
			advice = "give the user the tag monitoring"
		}
		x.add("cluster", transport.Unknown, err.Error(), advice)
		return
	}
	x.nodes = nodes
	var down, split []string
	for _, n := range nodes {
		if !n.Running {
			down = append(down, n.Name)
		}
		if len(n.Partitions) > 0 {
			split = append(split, n.Name+" has lost "+strings.Join(n.Partitions, " and "))
		}
	}
	switch {
	case len(split) > 0:
		x.add("cluster", transport.Broken, "it is split: "+strings.Join(split, ", "),
			"choose the side to keep and restart the nodes of the other one")
	case len(down) > 0:
		x.add("cluster", transport.Doubtful,
			fmt.Sprintf("%d of %d nodes are down: %s", len(down), len(nodes), strings.Join(down, ", ")), "start them")
	default:
		x.add("cluster", transport.Healthy, count(int64(len(nodes)), "node")+" running", "")
	}
}

// publishing publishes messages that no queue will ever get: the way of every task, up to the last step. Two of them,
// because a broker with an alarm takes the first one before it stops the connection.
func (x *examination) publishing(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	nowhere := []transport.Publication{{Message: new(protocol.Message), Optional: true,
		RoutingKey: "gelery.doctor." + protocol.NewID()}}
	began := time.Now()
	err := x.t.Publish(ctx, nowhere)
	if err == nil {
		err = x.t.Publish(ctx, nowhere)
	}
	if err == nil {
		x.add("publishing", transport.Healthy, fmt.Sprintf("two messages were confirmed in %v", time.Since(began).Round(10*time.Microsecond)), "")
		return
	}
	advice := ""
	if errors.Is(err, transport.ErrDenied) {
		advice = "give the user the right to write to amq.default (rabbitmqctl set_permissions)"
	}
	if p, ok := errors.AsType[*transport.PublishError](err); ok {
		err = p.Err // which broker is known
	}
	x.add("publishing", transport.Broken, err.Error(), advice)
}

// queues examines those asked for, or all.
func (x *examination) queues(ctx context.Context, names []string) error {
	if len(names) == 0 {
		all, err := x.t.Queues(ctx)
		if err != nil {
			x.add("queues", transport.Unknown, "they cannot be listed: "+err.Error(), "name those to examine")
			return nil //nolint:nilerr // that they cannot be listed is what was found out
		}
		names = all
	}
	if err := x.delays(ctx); err != nil {
		return err
	}
	told, _ := x.management.describe(ctx, names) // without it there is less to say
	depths, err := x.t.Depths(ctx, names)
	if err != nil {
		return err
	}
	looks, err := x.t.look(ctx, names)
	if err != nil {
		return err
	}
	if len(names) > maxRights {
		x.add("permissions", transport.Unknown, fmt.Sprintf("found out for %d of %d queues only", maxRights, len(names)), "name those that matter")
	}
	for i, name := range names {
		if err := x.queue(ctx, name, looks[name], told[name], depths[i], i < maxRights); err != nil {
			return err
		}
		if n := depths[i].Quarantined; n > 0 {
			x.add("quarantine of "+name, transport.Doubtful, count(n, "message")+" that no worker could handle", "look at them, then purge them")
		}
	}
	return nil
}

// delays looks for the queues of native delayed delivery, which exist if a client with quorum queues ever ran.
func (x *examination) delays(ctx context.Context) error {
	names := make([]string, delayLevels)
	for level := range names {
		names[level] = levelName(level)
	}
	looks, err := x.t.look(ctx, names)
	if err != nil {
		return err
	}
	var waiting int64
	there := 0
	for _, l := range looks {
		if l.err == nil {
			there++
			waiting += l.messages
		}
	}
	v := &verdict{health: transport.Healthy}
	switch there {
	case 0:
	case delayLevels:
		v.note("", count(waiting, "message")+" waiting for their time", "")
		if x.flag(ctx, "stream_queue") == "disabled" { // at-least-once dead-lettering came with it
			v.note(transport.Doubtful, "a message may be lost on its way from level to level",
				"enable the feature flag stream_queue (rabbitmqctl enable_feature_flag)")
		}
		if copied := x.copied(ctx); len(copied) > 0 {
			v.note(transport.Doubtful, "what the workers of any queue delay is copied to "+strings.Join(copied, ", "),
				"bind them with routing keys other than wildcards alone")
		}
	default:
		v.note(transport.Broken, fmt.Sprintf("%d of its %d queues are missing", delayLevels-there, delayLevels),
			"start a worker, which declares them anew")
	}
	may, err := x.mayDeclare(ctx, levelName(delayLevels-1))
	if err != nil {
		return err
	}
	if !may {
		v.note(transport.Doubtful, "the user may not declare its queues and exchanges; a worker of this user holds what is not due yet",
			"give the user the right to configure, write and read ^celery_delayed_ (rabbitmqctl set_permissions)")
	}
	if len(v.details) > 0 {
		x.add("delayed delivery", v.health, strings.Join(v.details, "; "), strings.Join(v.advice, "; "))
	}
	return nil
}

// copied are the queues and exchanges that get what comes out of the delay, whoever it is for: their bindings match
// everything.
func (x *examination) copied(ctx context.Context) (names []string) {
	var bindings []struct {
		Destination string
		Type        string `json:"destination_type"`
		RoutingKey  string `json:"routing_key"`
	}
	path := "exchanges/" + url.PathEscape(x.management.vhost) + "/" + deliveryExchange + "/bindings/source"
	if x.management.get(ctx, path, nil, &bindings) != nil {
		return nil // it is not told
	}
	for _, b := range bindings {
		if b.RoutingKey != "" && strings.Trim(b.RoutingKey, "#*.") == "" && !strings.HasSuffix(b.RoutingKey, ".") {
			names = append(names, fmt.Sprintf("%s %s (%s)", b.Type, b.Destination, b.RoutingKey))
		}
	}
	return names
}

// flag is the state of a feature flag; "" if it is not told, which only administrators are.
func (x *examination) flag(ctx context.Context, name string) string {
	var flags []struct{ Name, State string }
	if x.management.get(ctx, "feature-flags", nil, &flags) != nil {
		return ""
	}
	for _, f := range flags {
		if f.Name == name {
			return f.State
		}
	}
	return ""
}

// verdict collects what is wrong with one thing. The worst counts.
type verdict struct {
	health          transport.Health
	details, advice []string
}

func (v *verdict) note(health transport.Health, detail, advice string) {
	if v.health != transport.Broken && health != "" {
		v.health = health
	}
	v.details = append(v.details, detail)
	if advice != "" {
		v.advice = append(v.advice, advice)
	}
}

// queue examines one queue, and what the user may do to it if rights is set.
func (x *examination) queue(ctx context.Context, name string, seen look, told *queueInfo, depth transport.Depth, rights bool) error {
	subject := "queue " + name
	if errors.Is(seen.err, errNotFound) {
		x.add(subject, transport.Doubtful, "it does not exist", "start a worker that serves it, which declares it")
		return nil
	}
	v := &verdict{health: transport.Healthy}
	if told != nil {
		x.properties(v, told)
	}
	if seen.err != nil {
		v.note(transport.Doubtful, seen.err.Error(), "")
	} else {
		v.note("", fmt.Sprintf("%d waiting, %s", seen.messages, count(seen.consumers, "consumer")), "")
		if depth.Unacked >= 0 {
			v.note("", fmt.Sprintf("%d unacked", depth.Unacked), "")
		}
		if seen.consumers == 0 && seen.messages > 0 {
			v.note(transport.Doubtful, "nobody consumes", "start a worker that serves it")
		}
	}
	if rights {
		if err := x.rights(ctx, v, name, told != nil); err != nil {
			return err
		}
	}
	x.add(subject, v.health, strings.Join(v.details, "; "), strings.Join(v.advice, "; "))
	return nil
}

// properties judges how a queue was made.
func (x *examination) properties(v *verdict, q *queueInfo) {
	v.note("", firstOf(q.Type, "classic"), "")
	if !q.Durable {
		v.note(transport.Doubtful, "not durable: it is gone when the broker restarts", "")
	}
	if q.Policy != "" {
		v.note("", "policy "+q.Policy, "")
	}
	switch q.State {
	case "down", "stopped", "crashed", "minority", "timeout":
		v.note(transport.Broken, "its state is "+q.State, "start the node it lives on")
	}
	if n := len(q.Members); n > 0 {
		v.note("", fmt.Sprintf("%d of %d members online", len(q.Online), n), "")
		if len(q.Online) <= n/2 {
			v.note(transport.Broken, "no majority", "start the nodes "+strings.Join(q.Members, ", "))
		} else if n == 1 && len(x.nodes) > 1 {
			v.note(transport.Doubtful, "all copies are on one node", "grow it: rabbitmq-queues grow <node> all")
		}
	} else if len(x.nodes) > 1 {
		v.note(transport.Doubtful, "it lives on one node and is away while that is down", "use a quorum queue")
	}
	limited := q.setting("max-length") != nil || q.setting("max-length-bytes") != nil
	if overflow, _ := q.setting("overflow").(string); limited && (overflow == "" || overflow == "drop-head") {
		v.note(transport.Doubtful, "when it is full it drops its oldest messages without a word", "set overflow to reject-publish")
	}
	if q.setting("message-ttl") != nil && q.setting("dead-letter-exchange") == nil {
		v.note(transport.Doubtful, fmt.Sprintf("messages that wait longer than %v ms are dropped without a word", q.setting("message-ttl")),
			"leave message-ttl out, or add a dead-letter exchange")
	}
}

// rights finds out what the user may do to a queue without doing it. Asking for the priority "?" of a consumer is
// refused, but only of those who may consume (read); declaring the queue once more, with what Celery declares by
// default, is refused if it is another kind of queue, but only of those who may declare it (configure).
func (x *examination) rights(ctx context.Context, v *verdict, name string, typeKnown bool) error {
	err := x.t.onChannel(ctx, "consume", func(ch *amqp.Channel) error {
		_, err := ch.Consume(name, "", false, false, false, false, amqp.Table{"x-priority": "?"})
		return err
	})
	switch {
	case errors.Is(err, transport.ErrDenied):
		v.note(transport.Broken, "the user may not consume from it", "give it the right to read (rabbitmqctl set_permissions)")
	case err != nil && !isVerdict(err):
		return err
	}
	err = x.t.onChannel(ctx, "declare", func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, nil)
		return err
	})
	switch {
	case errors.Is(err, transport.ErrDenied):
		v.note(transport.Doubtful, "the user may not declare it, which workers do when they start",
			"give it the right to configure (rabbitmqctl set_permissions)")
	case errors.Is(err, transport.ErrMismatch) && !typeKnown:
		_, why, _ := strings.Cut(err.Error(), "inequivalent ")
		v.note("", "not what Celery declares by default: "+why, "")
	case err != nil && !isVerdict(err):
		return err
	}
	may, err := x.mayDeclare(ctx, quarantineName(name))
	if err != nil {
		return err
	}
	if !may {
		v.note(transport.Doubtful, "the user may not declare "+quarantineName(name)+"; a worker of this user holds its bad messages",
			"give it the right to configure and write ^_gelery\\.quarantine\\. (rabbitmqctl set_permissions)")
	}
	return nil
}

// mayDeclare finds out whether the user may declare a queue, without doing it: a declaration that makes no sense is
// refused as such only to those who may.
func (x *examination) mayDeclare(ctx context.Context, queue string) (bool, error) {
	err := x.t.onChannel(ctx, "declare", func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-dead-letter-exchange": int64(0)})
		return err
	})
	if err != nil && !isVerdict(err) {
		return false, err
	}
	return !errors.Is(err, transport.ErrDenied), nil
}

func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
