//go:build unix

// Package rabbitmqserver starts RabbitMQ nodes of one's own: free ports of the loopback interface, a folder and an epmd
// of their own, nothing shared with a RabbitMQ that the machine may run. Programs that measure use it, and package
// testservice builds on it what tests do to a broker.
package rabbitmqserver

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrNotInstalled is what Start wraps when there is no rabbitmq-server on the machine.
var ErrNotInstalled = errors.New("rabbitmq-server is not installed")

const (
	startTimeout = 3 * time.Minute // 6 s on an idle machine, several times that on a busy one
	stopTimeout  = 15 * time.Second
	tries        = 3 // somebody else may take a port before RabbitMQ does
)

//go:embed evaluator.erl
var evaluator []byte

// Config says how the nodes are started. The zero value is one node with everything by default.
type Config struct {
	Binary string   // path of the start script; "": what Find finds
	Nodes  int      // 0: 1; more form a cluster
	Lines  []string // appended to each node's rabbitmq.conf: "heartbeat = 5"
	Wrap   []string // put before the command lines, to pin the nodes to a core for example: "taskset", "-c", "0"
}

// Cluster is one node or several that form a cluster, with what they need beside them. It ends by Close, and within
// moments of the process that started it, however that ends. No goroutine belongs to it, so one that all tests of a
// process share is no leak.
type Cluster struct {
	Nodes []*Node

	config Config
	dir    string
	epmd   *child
	guard  *exec.Cmd
	alive  io.Closer // the guard's standard input: its end is the cluster's
	env    []string  // what all nodes have in common
}

// Find returns the path of the script that starts RabbitMQ. Debian and Red Hat put a wrapper on the PATH that insists
// on the system's own user and folders, so the folder with what it wraps comes first.
func Find() (string, error) {
	for _, path := range []string{os.Getenv("RABBITMQ_SERVER"), "/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server",
		"/opt/homebrew/sbin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server", "/usr/sbin/rabbitmq-server"} {
		if path == "" {
			continue
		}
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%w, neither where packages put it nor on the PATH; RABBITMQ_SERVER may name it", ErrNotInstalled)
}

// Start starts the nodes and waits until each serves clients and, if there are several, all are one cluster.
func (c Config) Start(ctx context.Context) (_ *Cluster, err error) {
	if c.Binary == "" {
		if c.Binary, err = Find(); err != nil {
			return nil, err
		}
	}
	c.Nodes = max(c.Nodes, 1)
	for range tries {
		k := &Cluster{config: c}
		if err = k.start(ctx); err == nil {
			return k, nil
		}
		err = errors.Join(err, k.Close())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (k *Cluster) start(ctx context.Context) (err error) {
	if k.dir, err = os.MkdirTemp("", "gelery-rabbitmq-"); err != nil {
		return err
	}
	ports, err := freePorts(1 + 3*k.config.Nodes)
	if err != nil {
		return err
	}
	k.env = environment(k.dir, ports[0])
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		return fmt.Errorf("epmd, which comes with Erlang, is not on the PATH: %w", err)
	}
	k.epmd = &child{}
	cmd := exec.Command(epmd, "-port", strconv.Itoa(ports[0]), "-address", "127.0.0.1") //nolint:noctx // ends by Close
	cmd.Env = k.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the nodes join its group, which the guard kills
	if err := k.epmd.start(cmd); err != nil {
		return err
	}
	if err := k.startGuard(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(k.dir, ".erlang.cookie"), fmt.Appendf(nil, "%016X", rand.Uint64()), 0o400); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(k.dir, "evaluator.erl"), evaluator, 0o600); err != nil {
		return err
	}
	for i := range k.config.Nodes {
		k.Nodes = append(k.Nodes, newNode(k, fmt.Sprintf("gelery%d@localhost", i+1), ports[1+3*i:]))
	}
	for _, n := range k.Nodes {
		if err := n.begin(); err != nil {
			return err
		}
	}
	for _, n := range k.Nodes {
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	return k.awaitCluster(ctx)
}

// startGuard starts a shell that waits for the end of its standard input, which comes with Close or when this process
// dies however it dies, and then kills the group and removes the folder. The group is epmd's, which nobody reaps before,
// so its number cannot belong to another. What the nodes started has groups of its own, and ends when they do.
func (k *Cluster) startGuard() error {
	const script = `read _; kill -s KILL -- "-$1"; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$2" 2>/dev/null && exit; sleep 0.1; done`
	k.guard = exec.Command("/bin/sh", "-c", script, "sh", strconv.Itoa(k.epmd.pid), k.dir) //nolint:noctx // ends by Close
	k.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := k.guard.StdinPipe()
	if err == nil {
		err = k.guard.Start()
	}
	if err != nil {
		return fmt.Errorf("guard of the nodes: %w", err)
	}
	k.alive = stdin
	return nil
}

// Close kills the nodes, waits for them and removes their folder. Closing twice does nothing.
func (k *Cluster) Close() (err error) {
	switch {
	case k.alive != nil:
		_ = k.alive.Close()
		err = k.guard.Wait()
	case k.epmd != nil: // no guard came to be
		k.epmd.end(syscall.SIGKILL)
		err = os.RemoveAll(k.dir)
	case k.dir != "":
		err = os.RemoveAll(k.dir)
	}
	for _, n := range k.Nodes {
		n.child.end(syscall.SIGKILL)
	}
	if k.epmd != nil {
		k.epmd.end(syscall.SIGKILL)
	}
	k.alive, k.epmd, k.dir = nil, nil, ""
	return err
}

// awaitCluster waits until the first node sees all of them running.
func (k *Cluster) awaitCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	want := fmt.Sprint(len(k.Nodes))
	for _, n := range k.Nodes {
		if err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
			got, err := n.Eval(ctx, "1 + length([N || N <- nodes(), rpc:call(N, rabbit, is_running, [])])")
			return got == want, err
		}); err != nil {
			return fmt.Errorf("%s does not see all %s nodes: %w", n.Name, want, err)
		}
	}
	return nil
}

// environment is this process's without what would lead a node to somebody else's RabbitMQ.
func environment(dir string, epmd int) []string {
	var env []string
	for _, e := range os.Environ() {
		if !hasPrefix(e, "RABBITMQ_", "ERL_", "CONF_ENV_FILE=", "NOTIFY_SOCKET=", "HOME=") {
			env = append(env, e)
		}
	}
	return append(env, "HOME="+dir, "ERL_EPMD_PORT="+strconv.Itoa(epmd), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CTL_ERL_ARGS=+S 1:1 +sbwt none")
}

// freePorts returns ports that nobody listens on, below those that the system gives to connections: a node listens on
// its ports seconds after they were chosen, and again after each restart.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 100 * n {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(22_000)))) //nolint:noctx // at once
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }() // together, or one port might be chosen twice
		if ports = append(ports, l.Addr().(*net.TCPAddr).Port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("fewer than %d ports of 127.0.0.1 are free", n)
}
