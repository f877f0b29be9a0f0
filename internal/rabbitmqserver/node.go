//go:build unix

package rabbitmqserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Node is one RabbitMQ node.
type Node struct {
	Name       string // gelery1@localhost
	Addr       string // 127.0.0.1:port, where AMQP is spoken
	Management string // http://127.0.0.1:port, the management API, user guest, password guest

	cluster *Cluster
	dir     string
	env     []string
	child   child
}

// newNode lays out a node: AMQP, management and distribution ports.
func newNode(k *Cluster, name string, ports []int) *Node {
	short, _, _ := strings.Cut(name, "@")
	n := &Node{Name: name, cluster: k, dir: filepath.Join(k.dir, short)}
	n.Addr = "127.0.0.1:" + strconv.Itoa(ports[0])
	n.Management = "http://127.0.0.1:" + strconv.Itoa(ports[1])
	in := func(file string) string { return filepath.Join(n.dir, file) }
	// Two schedulers that never spin: nodes share few cores with the tests. The script becomes the node itself when it
	// takes itself for a child of systemd; else it stays between us and it.
	erl := `+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1} ` +
		`-eval file:script(os:getenv("GELERY_EVALUATOR_SCRIPT"))`
	n.env = append(k.env[:len(k.env):len(k.env)], "RABBITMQ_NODENAME="+name, "RABBITMQ_DIST_PORT="+strconv.Itoa(ports[2]),
		"RABBITMQ_MNESIA_BASE="+in("data"), "RABBITMQ_LOG_BASE="+in("log"), "RABBITMQ_SCHEMA_DIR="+in("schema"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+in("generated"), "RABBITMQ_CONFIG_FILE="+in("rabbitmq"),
		"RABBITMQ_CONFIG_FILES="+in("conf.d"), "RABBITMQ_ADVANCED_CONFIG_FILE="+in("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+in("plugins"), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+erl,
		"GELERY_EVALUATOR="+in("evaluator"), "GELERY_EVALUATOR_SCRIPT="+filepath.Join(k.dir, "evaluator.erl"),
		"RUNNING_UNDER_SYSTEMD=true")
	return n
}

// configure writes the node's files.
func (n *Node) configure() error {
	_, management, _ := strings.Cut(n.Management, "127.0.0.1:")
	lines := []string{"listeners.tcp.1 = " + n.Addr, "management.tcp.ip = 127.0.0.1", "management.tcp.port = " + management,
		"collect_statistics_interval = 500", // the management API's numbers are that old, by default 5 s
		"disk_free_limit.absolute = 1MB"}
	if len(n.cluster.Nodes) > 1 {
		for i, other := range n.cluster.Nodes {
			lines = append(lines, fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s", i+1, other.Name))
		}
	}
	lines = append(append(lines, n.cluster.config.Lines...), "")
	for _, dir := range []string{"data", "log", "schema", "generated", "conf.d"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o700); err != nil {
			return err
		}
	}
	return errors.Join(os.WriteFile(filepath.Join(n.dir, "rabbitmq.conf"), []byte(strings.Join(lines, "\n")), 0o600),
		os.WriteFile(filepath.Join(n.dir, "advanced.config"), []byte("[].\n"), 0o600),
		os.WriteFile(filepath.Join(n.dir, "plugins"), []byte("[rabbitmq_management].\n"), 0o600))
}

// begin starts the node and waits for nothing.
func (n *Node) begin() error {
	if err := n.configure(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(n.dir, "evaluator")); err != nil && !os.IsNotExist(err) {
		return err
	}
	output, err := os.Create(filepath.Join(n.dir, "output"))
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	args := append(n.cluster.config.Wrap[:len(n.cluster.config.Wrap):len(n.cluster.config.Wrap)], n.cluster.config.Binary)
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it ends by End or Close
	cmd.Dir, cmd.Env = n.dir, n.env
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: n.cluster.epmd.pid}
	return n.child.start(cmd)
}

// await waits until the node serves clients.
func (n *Node) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
		if !n.child.runs() {
			return false, errors.New("it ended at once")
		}
		_, err := os.Stat(filepath.Join(n.dir, "evaluator"))
		return err == nil, nil
	})
	if err == nil {
		_, err = n.Eval(ctx, "rabbit:await_startup()")
	}
	if err != nil {
		return fmt.Errorf("rabbitmq node %s: %w; it said: %s", n.Name, err, n.Log(20))
	}
	return nil
}

// Log returns the last lines that the node logged and said.
func (n *Node) Log(lines int) string {
	var all []string
	for _, pattern := range []string{"log/*.log", "output"} {
		files, _ := filepath.Glob(filepath.Join(n.dir, pattern))
		for _, f := range files {
			text, _ := os.ReadFile(f)
			tail := strings.Split(strings.TrimSpace(string(text)), "\n")
			all = append(all, tail[max(len(tail)-lines, 0):]...)
		}
	}
	return strings.Join(all, "\n")
}

// Pid is the node's process id, 0 when it does not run.
func (n *Node) Pid() int {
	n.child.mu.Lock()
	defer n.child.mu.Unlock()
	return n.child.pid
}

// Signal sends a signal and waits for nothing.
func (n *Node) Signal(sig syscall.Signal) error {
	n.child.mu.Lock()
	defer n.child.mu.Unlock()
	if n.child.pid == 0 {
		return os.ErrProcessDone
	}
	return syscall.Kill(n.child.pid, sig)
}

// Freeze stops the process (SIGSTOP) and waits until the last of its threads stands still. The system gives the signal to
// one thread, which stops the others when it comes to run: on a busy machine a scheduler of the node still answers then.
func (n *Node) Freeze(ctx context.Context) error {
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(ctx, time.Millisecond, n.child.stands)
}

// End ends the node by a signal and waits for it; one that does not go in 15 seconds is killed. A node that does not
// run is left alone. Its folder stays, and Restart may follow.
func (n *Node) End(sig syscall.Signal) { n.child.end(sig) }

// Restart starts an ended node again, or kills a running one first, and waits until it serves clients: same ports, same
// folder.
func (n *Node) Restart(ctx context.Context) error {
	n.End(syscall.SIGKILL)
	if err := n.begin(); err != nil {
		return err
	}
	return n.await(ctx)
}

// child is a process that is watched without a goroutine.
type child struct {
	mu  sync.Mutex
	pid int // 0: it does not run
}

func (c *child) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.pid = cmd.Process.Pid
	return cmd.Process.Release() // we wait for it by its id
}

func (c *child) runs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.reap()
}

// reap says whether the process is gone, and forgets it then. The caller holds mu.
func (c *child) reap() bool {
	if c.pid == 0 {
		return true
	}
	got, err := syscall.Wait4(c.pid, nil, syscall.WNOHANG, nil)
	if got == c.pid || errors.Is(err, syscall.ECHILD) {
		c.pid = 0
	}
	return c.pid == 0
}

// stands says whether the process is stopped; it must not be asked again before the process went on.
func (c *child) stands() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid == 0 {
		return false, os.ErrProcessDone
	}
	var status syscall.WaitStatus
	got, err := syscall.Wait4(c.pid, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
	if got == c.pid && !status.Stopped() {
		c.pid = 0
		return false, os.ErrProcessDone
	}
	return got == c.pid, err
}

func (c *child) end(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sig := range []syscall.Signal{sig, syscall.SIGKILL} {
		if c.reap() {
			return
		}
		_ = syscall.Kill(c.pid, sig)
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		_ = poll(ctx, 2*time.Millisecond, func() (bool, error) { return c.reap(), nil })
		cancel()
	}
}

// poll asks until the answer is yes, an error, or ctx is done.
func poll(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func hasPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
