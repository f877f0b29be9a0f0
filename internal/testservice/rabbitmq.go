//go:build unix

package testservice

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/rabbitmqserver"
)

// rabbitPatience bounds whatever a test asks of a broker that runs.
const rabbitPatience = 30 * time.Second

// RabbitMQServer is a virtual host on a running RabbitMQ. On one from StartRabbitMQ or StartRabbitMQCluster a test may
// do anything; on the one that RabbitMQ shares it must leave the node alone: no Kill, Stop, Restart, Freeze, alarm or
// consumer timeout.
type RabbitMQServer struct {
	URL           string // amqp://guest:guest@127.0.0.1:port/vhost
	Addr          string // 127.0.0.1:port
	Vhost         string
	ManagementURL string // http://guest:guest@127.0.0.1:port, the root of the management API
	NodeName      string // gelery1@localhost

	t      testing.TB
	node   *rabbitmqserver.Node
	shared bool
}

// shared is the node of RabbitMQ. It ends with the test process.
var shared struct {
	mu      sync.Mutex
	cluster *rabbitmqserver.Cluster
	err     error
	vhosts  int
}

// RabbitMQ returns a virtual host of its own for this test, on a node that all tests of the process share: the first
// call starts it (6 s), the others take some 20 ms. User guest may do everything there. It is deleted when the test ends,
// with all connections to it.
func RabbitMQ(t testing.TB) *RabbitMQServer {
	t.Helper()
	shared.mu.Lock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = rabbitmqserver.Config{}.Start(context.Background())
	}
	cluster, err := shared.cluster, shared.err
	shared.vhosts++
	number := shared.vhosts
	shared.mu.Unlock()
	giveUp(t, err)

	s := newRabbitMQServer(t, cluster.Nodes[0], fmt.Sprintf("test %d/%s", number, strings.ToValidUTF8(t.Name()[:min(len(t.Name()), 60)], "")))
	s.shared = true
	path := "/api/vhosts/" + url.PathEscape(s.Vhost)
	s.Manage(http.MethodPut, path, "")
	s.Manage(http.MethodPut, "/api/permissions/"+url.PathEscape(s.Vhost)+"/guest", `{"configure":".*","write":".*","read":".*"}`)
	t.Cleanup(func() { s.Manage(http.MethodDelete, path, "") })
	return s
}

// StartRabbitMQ starts a node for this test alone, in 6 s and 150 MB. Lines are appended to its rabbitmq.conf:
// "heartbeat = 5". It is killed when the test ends, and when the test process dies; its virtual host is "/".
func StartRabbitMQ(t testing.TB, lines ...string) *RabbitMQServer {
	t.Helper()
	return startNodes(t, rabbitmqserver.Config{Lines: lines})[0]
}

func startNodes(t testing.TB, c rabbitmqserver.Config) []*RabbitMQServer {
	t.Helper()
	cluster, err := c.Start(context.Background())
	giveUp(t, err)
	var nodes []*RabbitMQServer
	for _, n := range cluster.Nodes {
		nodes = append(nodes, newRabbitMQServer(t, n, "/"))
	}
	t.Cleanup(func() {
		for _, s := range nodes {
			if t.Failed() {
				t.Logf("%s logged last:\n%s", s.NodeName, s.node.Log(40))
			}
		}
		if err := cluster.Close(); err != nil {
			t.Errorf("end rabbitmq: %v", err)
		}
	})
	return nodes
}

// giveUp ends the test if RabbitMQ did not start, by the rule of this package if it is not installed.
func giveUp(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, rabbitmqserver.ErrNotInstalled) && os.Getenv("GELERY_TEST_SERVERS") != "required":
		t.Skipf("%v: skipping what needs it", err)
	default:
		t.Fatal(err)
	}
}

func newRabbitMQServer(t testing.TB, n *rabbitmqserver.Node, vhost string) *RabbitMQServer {
	return &RabbitMQServer{URL: "amqp://guest:guest@" + n.Addr + "/" + url.PathEscape(vhost), Addr: n.Addr, Vhost: vhost,
		ManagementURL: strings.Replace(n.Management, "http://", "http://guest:guest@", 1), NodeName: n.Name, t: t, node: n}
}

// Pid is the process id of the running node.
func (s *RabbitMQServer) Pid() int { return s.node.Pid() }

// Kill ends the node at once (SIGKILL) and waits for it. A dead one is left alone. A quorum queue declared in the seconds
// before is lost for good: see SyncQueues.
func (s *RabbitMQServer) Kill() {
	s.t.Helper()
	s.own("Kill")
	s.node.End(syscall.SIGKILL)
}

// Stop ends the node in good order (SIGTERM), which takes a second or two, and waits for it.
func (s *RabbitMQServer) Stop() {
	s.t.Helper()
	s.own("Stop")
	s.node.End(syscall.SIGTERM)
}

// Restart starts a stopped or killed node again, or kills a running one first: same ports, same folder. It returns when
// the node serves clients.
func (s *RabbitMQServer) Restart() {
	s.t.Helper()
	s.own("Restart")
	if err := s.node.Restart(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// Freeze stops the node's process (SIGSTOP): connections stay open and nothing answers.
func (s *RabbitMQServer) Freeze() {
	s.t.Helper()
	s.own("signal")
	ctx, cancel := context.WithTimeout(context.Background(), rabbitPatience)
	defer cancel()
	if err := s.node.Freeze(ctx); err != nil {
		s.t.Fatalf("freeze %s: %v", s.NodeName, err)
	}
}

// Thaw lets a frozen node go on (SIGCONT).
func (s *RabbitMQServer) Thaw() {
	s.t.Helper()
	s.own("signal")
	if err := s.node.Signal(syscall.SIGCONT); err != nil {
		s.t.Errorf("thaw %s: %v", s.NodeName, err)
	}
}

// own keeps a test from breaking the node that others use.
func (s *RabbitMQServer) own(what string) {
	s.t.Helper()
	if s.shared {
		s.t.Fatalf("%s of the node that all tests share; use StartRabbitMQ", what)
	}
}

// CloseConnections closes every client connection to the virtual host as an operator does, CONNECTION_FORCED, and tells
// how many there were.
func (s *RabbitMQServer) CloseConnections() int {
	s.t.Helper()
	return s.count(fmt.Sprintf(`length([rabbit_networking:close_connection(P, "closed by the operator") ||
		P <- rabbit_networking:connections(), (catch rabbit_networking:connection_info(P, [vhost])) =:= [{vhost, %s}]])`,
		binary(s.Vhost)))
}

// Connections tells how many client connections to the virtual host are open.
func (s *RabbitMQServer) Connections() int {
	s.t.Helper()
	return s.count(fmt.Sprintf(`length([P || P <- rabbit_networking:connections(),
		(catch rabbit_networking:connection_info(P, [vhost])) =:= [{vhost, %s}]])`, binary(s.Vhost)))
}

// SetMemoryAlarm makes the node believe that it uses too much memory, or ends that. When it returns, publishers are
// blocked, or are not.
func (s *RabbitMQServer) SetMemoryAlarm(on bool) {
	s.t.Helper()
	s.own("SetMemoryAlarm")
	watermark := "0.4"
	if on {
		watermark = "{absolute, 1}"
	}
	s.Eval("vm_memory_monitor:set_vm_memory_high_watermark(" + watermark + ")")
	want := strconv.FormatBool(on)
	s.wait("memory alarm is "+want, func() bool {
		return s.Eval("lists:any(fun({{resource_limit, memory, N}, _}) -> N =:= node(); (_) -> false end, rabbit_alarm:get_alarms())") == want
	})
}

// SetConsumerTimeout sets how long a delivery may stay unacknowledged before its channel is closed, looked at every
// second, for channels opened from now on; 0 is the broker's default, half an hour.
func (s *RabbitMQServer) SetConsumerTimeout(d time.Duration) {
	s.t.Helper()
	s.own("SetConsumerTimeout")
	tick := 1000
	if d == 0 {
		d, tick = 30*time.Minute, 60_000
	}
	s.Eval(fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d)",
		d.Milliseconds(), tick))
}

// SyncQueues has the node write down which quorum queues it holds, as it does by itself within seconds. RabbitMQ 3.10
// confirms messages to a quorum queue before that; on a node that is killed then, and that is alone, the queue never has
// a leader again. A test that declares, fills and kills at once is not about that, and calls it before Kill.
func (s *RabbitMQServer) SyncQueues() {
	s.t.Helper()
	s.Eval("[dets:sync(Table) || Table <- dets:all()]")
}

// Depth tells how many messages of a queue wait and how many are held by consumers; -1 and -1 if there is no such queue.
// A quorum queue's counters lag behind: wait for what you expect, and prove nothing by them.
func (s *RabbitMQServer) Depth(queue string) (ready, unacked int) {
	s.t.Helper()
	answer := s.Eval(fmt.Sprintf(`case rabbit_amqqueue:lookup(rabbit_misc:r(%s, queue, %s)) of
		{ok, Q} ->
			[{_, R}, {_, U}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
			{text, io_lib:format("~p ~p", [R, U])};
		_ -> {text, "-1 -1"} end`, binary(s.Vhost), binary(queue)))
	if _, err := fmt.Sscan(answer, &ready, &unacked); err != nil {
		s.t.Fatalf("depth of %s is %q: %v", queue, answer, err)
	}
	return ready, unacked
}

// Put publishes bytes to a queue as a foreign producer might: a body without headers or any other property.
func (s *RabbitMQServer) Put(queue string, body []byte) {
	s.t.Helper()
	request := fmt.Sprintf(`{"properties": {}, "routing_key": %q, "payload": %q, "payload_encoding": "base64"}`,
		queue, base64.StdEncoding.EncodeToString(body))
	answer := s.Manage(http.MethodPost, "/api/exchanges/"+url.PathEscape(s.Vhost)+"/amq.default/publish", request)
	if !bytes.Contains(answer, []byte("true")) {
		s.t.Fatalf("message to queue %q was not routed: %s", queue, answer)
	}
}

// Manage calls the management API and returns what it answered: "GET", "/api/queues", "". Any status but 2xx fails the
// test. Its numbers are up to half a second old.
func (s *RabbitMQServer) Manage(method, path, body string) []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rabbitPatience)
	defer cancel()
	answer, err := s.node.Manage(ctx, method, path, body)
	if err != nil {
		s.t.Fatalf("%s: %v", s.NodeName, err)
	}
	return answer
}

// Eval evaluates Erlang expressions inside the node, in a millisecond, and returns the last value as Erlang writes it.
func (s *RabbitMQServer) Eval(expressions string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rabbitPatience)
	defer cancel()
	answer, err := s.node.Eval(ctx, expressions)
	if err != nil {
		s.t.Fatalf("%s: %v", s.NodeName, err)
	}
	return answer
}

// Ctl runs rabbitmqctl against the node, which takes a second or two, and returns what it said.
func (s *RabbitMQServer) Ctl(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rabbitPatience)
	defer cancel()
	answer, err := s.node.Ctl(ctx, args...)
	if err != nil {
		s.t.Fatalf("%s: %v", s.NodeName, err)
	}
	return answer
}

func (s *RabbitMQServer) count(expressions string) int {
	s.t.Helper()
	answer := s.Eval(expressions)
	n, err := strconv.Atoi(answer)
	if err != nil {
		s.t.Fatalf("%s answered %q; expected a number", s.NodeName, answer)
	}
	return n
}

// wait asks until the answer is yes.
func (s *RabbitMQServer) wait(what string, yes func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(rabbitPatience); !yes(); <-tick.C {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not so after %v: %s", s.NodeName, rabbitPatience, what)
		}
	}
}

// binary writes a string as an Erlang binary, byte by byte.
func binary(s string) string {
	return "<<" + strings.Trim(strings.ReplaceAll(fmt.Sprint([]byte(s)), " ", ","), "[]") + ">>"
}
