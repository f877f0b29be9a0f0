//go:build unix

// Package databaseserver starts database servers of one's own: a free port of the loopback interface, a folder of its own, nothing
// that makes writes outlast a crash of the machine. Programs that measure use it, and package testservice builds on it.
package databaseserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gelery/gelery/internal/tiedchild"
)

// patience bounds what is asked of a server: a busy machine starts it slowly.
const patience = 2 * time.Minute

// Server is a running database server. It dies with the process that started it, where the system can arrange that.
type Server struct {
	Addr string // 127.0.0.1:port

	dir      string
	as       *syscall.Credential // as whom it runs; nil: as we do
	process  *os.Process
	exited   <-chan struct{}
	stopping sync.Once
	client   func(ctx context.Context, statement string) *exec.Cmd
	url      func(database string) string
	counted  atomic.Int64
}

// NewDatabase makes an empty database and returns its URL: postgresql://gelery@127.0.0.1:port/db1, mysql://root@127.0.0.1:port/db1.
func (s *Server) NewDatabase(ctx context.Context) (string, error) {
	name := "db" + strconv.FormatInt(s.counted.Add(1), 10)
	return s.url(name), s.Execute(ctx, "CREATE DATABASE "+name)
}

// Execute runs a statement as the server's administrator.
func (s *Server) Execute(ctx context.Context, statement string) error {
	if said, err := s.client(ctx, statement).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", statement, err, said)
	}
	return nil
}

// Signal sends a signal to the server: SIGSTOP and SIGCONT stop its acceptance of connections for a while.
func (s *Server) Signal(sig os.Signal) error { return s.process.Signal(sig) }

// Pid is the server's process id. PostgreSQL has a child for each connection.
func (s *Server) Pid() int { return s.process.Pid }

// FindPostgreSQL is the program of a PostgreSQL's server: on the PATH, or where Debian puts it; "" if there is none.
func FindPostgreSQL() string {
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	return find(append([]string{"postgres"}, candidates...)...)
}

// FindMariaDB are the programs of a MariaDB; "" for one that is not there.
func FindMariaDB() (server, install, client string) {
	return find("mariadbd", "/usr/sbin/mariadbd", "/usr/libexec/mariadbd"), find("mariadb-install-db", "/usr/bin/mariadb-install-db"),
		find("mariadb", "/usr/bin/mariadb")
}

func find(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// PostgreSQL starts a PostgreSQL (2 s). User gelery may do everything there, without a password. Its other programs are beside the
// one that is given.
func PostgreSQL(ctx context.Context, postgres string) (*Server, error) {
	if real, err := filepath.EvalSymlinks(postgres); err == nil {
		postgres = real
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(postgres), name) }
	s, host, port, err := prepare(ctx)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "data")
	s.client = func(ctx context.Context, statement string) *exec.Cmd {
		return exec.CommandContext(ctx, beside("psql"), "-h", host, "-p", port, "-U", "gelery", "-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement)
	}
	s.url = func(database string) string { return "postgresql://gelery@" + s.Addr + "/" + database }
	return s.begin(ctx,
		[]string{beside("initdb"), "-D", data, "-A", "trust", "-U", "gelery", "-E", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"},
		[]string{postgres, "-D", data, "-h", host, "-p", port, "-c", "unix_socket_directories=", "-c", "fsync=off",
			"-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=300", "-c", "shared_buffers=32MB"})
}

// MariaDB starts a MariaDB (4 s). User root may do everything there, without a password.
func MariaDB(ctx context.Context, server, install, client string) (*Server, error) {
	s, host, port, err := prepare(ctx)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "data")
	s.client = func(ctx context.Context, statement string) *exec.Cmd {
		return exec.CommandContext(ctx, client, "--no-defaults", "-h", host, "-P", port, "-u", "root", "-e", statement)
	}
	s.url = func(database string) string { return "mysql://root@" + s.Addr + "/" + database }
	return s.begin(ctx,
		[]string{install, "--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db"},
		[]string{server, "--no-defaults", "--datadir=" + data, "--bind-address=" + host, "--port=" + port, "--socket=" + filepath.Join(s.dir, "socket"),
			"--pid-file=" + filepath.Join(s.dir, "pid"), "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--skip-log-bin",
			"--character-set-server=utf8mb4", "--max-connections=300"})
}

// prepare makes a folder for a server, finds a port, and says as whom it runs: these servers refuse root.
func prepare(ctx context.Context) (s *Server, host, port string, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", "", err
	}
	s = &Server{Addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, "", "", err
	}
	if host, port, err = net.SplitHostPort(s.Addr); err != nil {
		return nil, "", "", err
	}
	if s.dir, err = os.MkdirTemp("", "gelery-database-"); err != nil {
		return nil, "", "", err
	}
	if os.Getuid() == 0 {
		if err = s.giveAway(); err != nil {
			return nil, "", "", errors.Join(err, os.RemoveAll(s.dir))
		}
	}
	return s, host, port, nil
}

// giveAway makes the folder that of an unprivileged user, who runs the server.
func (s *Server) giveAway() error {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, uidErr := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(nobody.Gid, 10, 32)
	s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return errors.Join(uidErr, gidErr, os.Chown(s.dir, int(uid), int(gid)))
}

// begin fills the folder, starts the server and waits until it answers.
func (s *Server) begin(ctx context.Context, install, serve []string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, install[0], install[1:]...)
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.as}
	cmd.WaitDelay = time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", install[0], err, said), os.RemoveAll(s.dir))
	}
	if err := s.start(ctx, serve); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", serve[0], err), s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, serve []string) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), serve[0], serve[1:]...) // it ends by Stop
	var output bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	cmd.WaitDelay = 5 * time.Second // what it leaves behind must not hold the pipe
	exited, err := tiedchild.Start(cmd)
	if err != nil {
		return err
	}
	s.process, s.exited = cmd.Process, exited
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		said, err := s.client(ctx, "SELECT 1").CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return fmt.Errorf("it ended at once: %s", output.String())
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %s", strings.TrimSpace(string(said)))
		}
	}
}

// Stop ends the server at once, with what it has started, and removes its folder. Stopping twice does nothing.
func (s *Server) Stop() error {
	s.stopping.Do(func() {
		if s.process == nil {
			return
		}
		_ = s.process.Signal(syscall.SIGCONT)
		_ = s.process.Signal(syscall.SIGQUIT)
		select {
		case <-s.exited:
		case <-time.After(10 * time.Second):
			_ = s.process.Kill()
			<-s.exited
		}
	})
	return os.RemoveAll(s.dir)
}
