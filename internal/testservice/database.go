//go:build unix

package testservice

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// databasePatience bounds what a test asks of a database server: a busy machine starts it slowly.
const databasePatience = 2 * time.Minute

// DatabaseServer is a running database server in which a test makes databases. It is gone when the test ends.
type DatabaseServer struct {
	Addr string // 127.0.0.1:port

	t       testing.TB
	server  *exec.Cmd
	exited  chan struct{}
	run     func(statement string) *exec.Cmd
	url     func(database string) string
	counted atomic.Int64
}

// NewDatabase makes an empty database and returns its URL without what stands before the name of the kind:
// postgresql://gelery@127.0.0.1:port/db1, mysql://root@127.0.0.1:port/db1.
func (s *DatabaseServer) NewDatabase(t testing.TB) string {
	t.Helper()
	name := "db" + strconv.FormatInt(s.counted.Add(1), 10)
	s.Execute(t, "CREATE DATABASE "+name)
	return s.url(name)
}

// Execute runs a statement as the server's administrator.
func (s *DatabaseServer) Execute(t testing.TB, statement string) {
	t.Helper()
	if said, err := s.run(statement).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", statement, err, said)
	}
}

// Signal sends a signal to the server: SIGSTOP and SIGCONT stop its acceptance of connections for a while.
func (s *DatabaseServer) Signal(sig syscall.Signal) error { return s.server.Process.Signal(sig) }

// StartPostgreSQL starts a PostgreSQL for this test, in a folder of its own (2 s). User gelery may do everything there, without
// a password. The programs are found beside the one that POSTGRES_SERVER names, on the PATH, or where Debian puts them.
func StartPostgreSQL(t testing.TB) *DatabaseServer {
	t.Helper()
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	postgres := databaseProgram(t, "POSTGRES_SERVER", append([]string{"postgres"}, candidates...)...)
	if real, err := filepath.EvalSymlinks(postgres); err == nil {
		postgres = real
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(postgres), name) }
	dir, as := databaseFolder(t)
	data := filepath.Join(dir, "data")
	runProgram(t, as, dir, beside("initdb"), "-D", data, "-A", "trust", "-U", "gelery", "-E", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	host, port := freeDatabasePort(t)
	s := &DatabaseServer{t: t, Addr: net.JoinHostPort(host, port)}
	s.run = func(statement string) *exec.Cmd {
		return exec.Command(beside("psql"), "-h", host, "-p", port, "-U", "gelery", "-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement)
	}
	s.url = func(database string) string { return "postgresql://gelery@" + s.Addr + "/" + database }
	s.start(as, dir, exec.Command(postgres, "-D", data, "-h", host, "-p", port, "-c", "unix_socket_directories=", "-c", "fsync=off",
		"-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=300", "-c", "shared_buffers=32MB"))
	return s
}

// StartMariaDB starts a MariaDB for this test, in a folder of its own (4 s). User root may do everything there, without a
// password. MARIADB_SERVER names its program where it is not on the PATH.
func StartMariaDB(t testing.TB) *DatabaseServer {
	t.Helper()
	mariadb := databaseProgram(t, "MARIADB_SERVER", "mariadbd", "/usr/sbin/mariadbd", "/usr/libexec/mariadbd")
	install := databaseProgram(t, "MARIADB_INSTALL", "mariadb-install-db", "/usr/bin/mariadb-install-db")
	client := databaseProgram(t, "MARIADB_CLIENT", "mariadb", "/usr/bin/mariadb")
	dir, as := databaseFolder(t)
	data := filepath.Join(dir, "data")
	runProgram(t, as, dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	host, port := freeDatabasePort(t)
	s := &DatabaseServer{t: t, Addr: net.JoinHostPort(host, port)}
	s.run = func(statement string) *exec.Cmd {
		return exec.Command(client, "--no-defaults", "-h", host, "-P", port, "-u", "root", "-e", statement)
	}
	s.url = func(database string) string { return "mysql://root@" + s.Addr + "/" + database }
	s.start(as, dir, exec.Command(mariadb, "--no-defaults", "--datadir="+data, "--bind-address="+host, "--port="+port, "--socket="+filepath.Join(dir, "socket"),
		"--pid-file="+filepath.Join(dir, "pid"), "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--skip-log-bin",
		"--character-set-server=utf8mb4", "--max-connections=300"))
	return s
}

// databaseProgram is Program with several places to look at.
func databaseProgram(t testing.TB, env string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil && os.Getenv(env) == "" {
			return path
		}
	}
	return Program(t, env, names[0])
}

// databaseFolder makes a folder for a server, and says as whom it runs: these servers refuse root.
func databaseFolder(t testing.TB) (string, *syscall.Credential) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gelery-database-") //nolint:usetesting // an unprivileged user may not enter the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if os.Getuid() != 0 {
		return dir, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, uidErr := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(nobody.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr, os.Chown(dir, int(uid), int(gid))); err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func runProgram(t testing.TB, as *syscall.Credential, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), databasePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	cmd.WaitDelay = time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, said)
	}
}

func freeDatabasePort(t testing.TB) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	host, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// start starts the server and waits until it answers.
func (s *DatabaseServer) start(as *syscall.Credential, dir string, cmd *exec.Cmd) {
	s.t.Helper()
	var output bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &output, &output
	cmd.SysProcAttr = dieWithParent(as)
	cmd.WaitDelay = 5 * time.Second // what it leaves behind must not hold the pipe
	s.server, s.exited = cmd, make(chan struct{})
	started := make(chan error)
	go func() {
		// The kernel ties a child to the thread that made it, so this thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stop)
	limit := time.After(databasePatience)
	for {
		said, err := s.run("SELECT 1").CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-s.exited:
			s.t.Fatalf("%s ended at once:\n%s", cmd.Path, output.String())
		case <-limit:
			s.t.Fatalf("%s does not answer: %s", cmd.Path, strings.TrimSpace(string(said)))
		}
	}
}

// stop ends the server at once, and with it what it has started.
func (s *DatabaseServer) stop() {
	_ = s.server.Process.Signal(syscall.SIGCONT)
	_ = s.server.Process.Signal(syscall.SIGQUIT)
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		_ = s.server.Process.Kill()
		<-s.exited
	}
}
