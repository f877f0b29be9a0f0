//go:build unix

package rabbitmqserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// starterEnv makes the test binary a program that starts a node, says so, and waits to be killed.
const starterEnv = "GELERY_TEST_STARTER"

func TestMain(m *testing.M) {
	if os.Getenv(starterEnv) != "" {
		k, err := Config{}.Start(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stdout, k.Nodes[0].Pid(), k.epmd.pid, k.dir)
		select {}
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, c Config) (*Cluster, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	k, err := c.Start(ctx)
	if errors.Is(err, ErrNotInstalled) && os.Getenv("GELERY_TEST_SERVERS") != "required" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k, ctx
}

func TestOneNode(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	k, ctx := start(t, Config{Lines: []string{"heartbeat = 7"}})
	t.Logf("started in %v", time.Since(begin))
	n := k.Nodes[0]
	for expressions, want := range map[string]string{
		"A = 1, A + 1": "2", "node()": n.Name, `{text, "ünï"}`: "ünï", "application:get_env(rabbit, heartbeat)": "{ok,7}",
		"list_to_integer(os:getpid())": "", // below
	} {
		got, err := n.Eval(ctx, expressions)
		if err != nil || want != "" && strings.Trim(got, "'") != want {
			t.Errorf("%s is %s, %v; expected %s", expressions, got, err, want)
		}
	}
	if _, err := n.Eval(ctx, "1/0"); err == nil || !strings.Contains(err.Error(), "badarith") {
		t.Errorf("1/0: %v; expected badarith", err)
	}
	if text, err := n.Manage(ctx, "GET", "/api/vhosts/%2F/permissions", ""); err != nil || !strings.Contains(string(text), "guest") {
		t.Errorf("permissions are %s, %v", text, err)
	}
	if _, err := n.Manage(ctx, "GET", "/api/vhosts/none", ""); err == nil {
		t.Error("no error for a virtual host that is not there")
	}
	if text, err := n.Ctl(ctx, "status"); err != nil || !strings.Contains(text, "RabbitMQ version") {
		t.Errorf("status says %s, %v", text, err)
	}
	pid := n.Pid()
	n.End(syscall.SIGTERM)
	if n.Pid() != 0 || syscall.Kill(pid, 0) == nil {
		t.Error("it lives after SIGTERM")
	}
	if err := n.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	dir := k.dir
	for range 2 {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	if c, err := net.DialTimeout("tcp", n.Addr, time.Second); err == nil {
		_ = c.Close()
		t.Error("it answers after Close")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its folder is still there: %v", err)
	}
}

// TestNodesDieWithTheirParent kills the process that started a node, and looks for what it leaves behind.
func TestNodesDieWithTheirParent(t *testing.T) {
	t.Parallel()
	if _, err := Find(); err != nil && os.Getenv("GELERY_TEST_SERVERS") != "required" {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	starter := exec.CommandContext(ctx, os.Args[0])
	starter.Env = append(os.Environ(), starterEnv+"=1")
	starter.Stderr = t.Output()
	out, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	var node, epmd int
	var dir string
	_, err = fmt.Fscan(out, &node, &epmd, &dir)
	_ = starter.Process.Kill()
	_ = starter.Wait()
	if err != nil {
		t.Fatalf("the starter said nothing of its node: %v", err)
	}
	err = poll(ctx, 10*time.Millisecond, func() (bool, error) {
		_, err := os.Stat(dir)
		return !alive(node) && !alive(epmd) && os.IsNotExist(err), nil
	})
	if err != nil {
		t.Errorf("process %d, process %d or folder %s is left behind: %v", node, epmd, dir, err)
	}
}

// alive says whether a process runs; one that nobody reaps in this container runs no more.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func TestStartOfNothing(t *testing.T) {
	t.Parallel()
	if _, err := (Config{Binary: "/nonexistent/rabbitmq-server"}).Start(t.Context()); err == nil {
		t.Error("no error")
	}
}
