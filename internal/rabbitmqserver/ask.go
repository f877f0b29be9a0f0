//go:build unix

package rabbitmqserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// Eval evaluates Erlang expressions, "A = 1, A + 1", inside the node and returns the value of the last one as Erlang
// writes it, or the words alone of {text, Words}. It takes a millisecond.
func (n *Node) Eval(ctx context.Context, expressions string) (string, error) {
	port, err := os.ReadFile(filepath.Join(n.dir, "evaluator"))
	if err != nil {
		return "", fmt.Errorf("node %s does not run: %w", n.Name, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+string(port))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	text := expressions + "."
	request := append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	if _, err := conn.Write(request); err != nil {
		return "", fmt.Errorf("evaluate %s: %w", expressions, errors.Join(context.Cause(ctx), err))
	}
	var size [4]byte
	_, err = io.ReadFull(conn, size[:])
	answer := make([]byte, min(binary.BigEndian.Uint32(size[:]), maxAnswer))
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("evaluate %s: %w", expressions, errors.Join(context.Cause(ctx), err))
	case len(answer) == 0 || answer[0] != '+':
		return "", fmt.Errorf("evaluate %s: %s", expressions, answer)
	}
	return string(answer[1:]), nil
}

// Manage calls the management API, "PUT", "/api/vhosts/x", and returns what it answered. Body "" is none. Any status
// but 2xx is an error.
func (n *Node) Manage(ctx context.Context, method, path, body string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, n.Management+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth("guest", "guest")
	request.Header.Set("Content-Type", "application/json")
	request.Close = true // no connection, and no goroutine, stays behind
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = reply.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(reply.Body, maxAnswer))
	if err == nil && reply.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, reply.Status, bytes.TrimSpace(text))
	}
	return text, err
}

// Ctl runs rabbitmqctl against the node and returns what it said. It takes a second or two: Eval is the quick way.
func (n *Node) Ctl(ctx context.Context, args ...string) (string, error) {
	binary := filepath.Join(filepath.Dir(n.cluster.config.Binary), "rabbitmqctl")
	cmd := exec.CommandContext(ctx, binary, append([]string{"--node", n.Name}, args...)...)
	cmd.Env = n.env
	cmd.WaitDelay = time.Second
	text, err := cmd.CombinedOutput()
	if err != nil {
		return string(text), fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(text))
	}
	return string(text), nil
}
