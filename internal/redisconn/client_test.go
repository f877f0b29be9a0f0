package redisconn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
)

func open(t *testing.T, url string, opts map[string]any, o ClientOptions) redis.UniversalClient {
	t.Helper()
	c, err := Parse(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	client := c.Client(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPasswordAndDatabase(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	ctx := deadline(t)
	admin := open(t, s.URL, nil, ClientOptions{})
	if err := admin.ConfigSet(ctx, "requirepass", "p@ss#1").Err(); err != nil {
		t.Fatal(err)
	}
	c := open(t, "redis://:p@ss#1@"+s.Addr+"/3", map[string]any{"client_name": "me"}, ClientOptions{})
	info, err := c.ClientInfo(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	if info.DB != 3 || info.Name != "me" || info.Resp != 2 || info.LibName != "" {
		t.Errorf("connection is %+v", info)
	}
	wrong := open(t, "redis://:no@"+s.Addr+"/3", nil, ClientOptions{})
	err = wrong.Ping(ctx).Err()
	if err == nil || Classify(err) != Fatal || InDoubt(err) {
		t.Errorf("wrong password: %v", err)
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	p := testservice.NewProxy(t, s.Addr)
	ctx := deadline(t)
	c := open(t, "redis://"+p.Addr+"/0", nil, ClientOptions{})
	if err := c.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	p.DropReplies(1)
	err := c.Incr(ctx, "n").Err()
	if err == nil || Classify(err) != Unavailable || !InDoubt(err) {
		t.Errorf("lost reply: %v", err)
	}
	if n, err := c.Get(ctx, "n").Int(); n != 1 || err != nil {
		t.Errorf("executed %d times, %v", n, err)
	}
}

func TestReadTimeout(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	c := open(t, s.URL, nil, ClientOptions{ReadTimeout: 50 * time.Millisecond})
	ctx := deadline(t)
	if err := c.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	s.Freeze()
	err := c.Ping(ctx).Err()
	s.Thaw()
	if err == nil || Classify(err) != Unavailable || !InDoubt(err) {
		t.Errorf("frozen server: %v", err)
	}
}

func TestFailoverList(t *testing.T) {
	t.Parallel()
	a, b := testservice.StartRedis(t), testservice.StartRedis(t)
	ctx := deadline(t)
	c := open(t, a.URL+";"+b.URL, nil, ClientOptions{})
	set := func(v string) error {
		return Do(ctx, slog.New(slog.DiscardHandler), "set", func(ctx context.Context) error {
			return c.Set(ctx, "k", v, 0).Err()
		})
	}
	get := func(s *testservice.RedisServer) string {
		return open(t, s.URL, nil, ClientOptions{}).Get(ctx, "k").Val()
	}
	if err := set("1"); err != nil || get(a) != "1" {
		t.Fatalf("the first server is not used first: %v", err)
	}
	a.Kill()
	if err := set("2"); err != nil || get(b) != "2" {
		t.Fatalf("no move to the second server: %v", err)
	}
	// The second becomes a replica, the first comes back as the master.
	a.Restart()
	host, port, _ := net.SplitHostPort(a.Addr)
	if err := open(t, b.URL, nil, ClientOptions{}).SlaveOf(ctx, host, port).Err(); err != nil {
		t.Fatal(err)
	}
	if err := set("3"); err != nil || get(a) != "3" {
		t.Fatalf("no move away from a read-only server: %v", err)
	}
	a.Kill()
	b.Kill()
	err := c.Ping(ctx).Err()
	if err == nil || Classify(err) != Unavailable || InDoubt(err) || strings.Contains(err.Error(), "\n") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestDialerMovesOn(t *testing.T) {
	t.Parallel()
	d := &dialer{addrs: []string{"127.0.0.1:1", "127.0.0.1:2"}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.dialAny(ctx, "tcp", ""); err == nil || d.at.Load() != 1 {
		t.Errorf("a dial without time: %v, next server %d", err, d.at.Load())
	}
	for range 3 { // three connections to one read-only server
		d.note(reply("READONLY You can't write against a read only replica."))
	}
	d.note(reply("OOM command not allowed"))
	d.note(nil)
	if d.at.Load() != 2 {
		t.Errorf("moved on to %d", d.at.Load())
	}
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	master, replica := testservice.StartRedis(t), testservice.StartRedis(t)
	ctx := deadline(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	if err := open(t, replica.URL, nil, ClientOptions{}).SlaveOf(ctx, host, port).Err(); err != nil {
		t.Fatal(err)
	}
	sentinel := testservice.StartSentinel(t, "gold", master)
	c := open(t, sentinel.URL+";sentinel://127.0.0.1:1", map[string]any{"master_name": "gold"}, ClientOptions{})
	log := slog.New(slog.DiscardHandler)
	if err := Do(ctx, log, "set", func(ctx context.Context) error {
		return c.Set(ctx, "k", "1", 0).Err()
	}); err != nil {
		t.Fatal(err)
	}
	if got := open(t, master.URL, nil, ClientOptions{}).Get(ctx, "k").Val(); got != "1" {
		t.Errorf("written elsewhere than at the master: %q", got)
	}
	// The replica must be known before it can take over.
	admin := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	defer func() { _ = admin.Close() }()
	for {
		if replicas, err := admin.Replicas(ctx, "gold").Result(); err == nil && len(replicas) == 1 && replicas[0]["flags"] == "slave" {
			break
		}
		if err := (&Backoff{}).Wait(ctx); err != nil {
			t.Fatal("the sentinel never finds the replica")
		}
	}
	master.Kill()
	if err := Do(ctx, log, "set", func(ctx context.Context) error {
		return c.Set(ctx, "k", "2", 0).Err()
	}); err != nil {
		t.Fatal(err)
	}
	if got := open(t, replica.URL, nil, ClientOptions{}).Get(ctx, "k").Val(); got != "2" {
		t.Errorf("after the failover the replica has %q", got)
	}
	sentinel.Kill()
	lost := open(t, sentinel.URL, map[string]any{"master_name": "gold"}, ClientOptions{})
	if err := lost.Ping(ctx).Err(); err == nil || Classify(err) != Unavailable || InDoubt(err) {
		t.Errorf("no sentinel: %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "localhost")
	s := testservice.StartRedis(t)
	ctx := deadline(t)
	admin := open(t, s.URL, nil, ClientOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	for _, kv := range [][2]string{{"tls-cert-file", cert}, {"tls-key-file", key}, {"tls-ca-cert-file", cert}, {"tls-port", port}} {
		if err := admin.ConfigSet(ctx, kv[0], kv[1]).Err(); err != nil {
			if strings.Contains(err.Error(), "Unknown option") {
				t.Skip("this redis-server is built without TLS")
			}
			t.Fatal(kv, err)
		}
	}
	client := "&ssl_certfile=" + cert + "&ssl_keyfile=" + key
	tests := []struct {
		name, host, query string
		ok                bool
	}{
		{"unknown authority", "localhost", "?ssl_cert_reqs=required" + client, false},
		{"verified", "localhost", "?ssl_ca_certs=" + cert + client, true},
		{"wrong name", "127.0.0.1", "?ssl_ca_certs=" + cert + client, false},
		{"name unchecked", "127.0.0.1", "?ssl_check_hostname=false&ssl_ca_certs=" + cert + client, true},
		{"chain still checked", "127.0.0.1", "?ssl_check_hostname=false" + client, false},
		{"unverified", "127.0.0.1", "?ssl_cert_reqs=none" + client, true},
	}
	for _, tt := range tests {
		err := open(t, "rediss://"+tt.host+":"+port+"/0"+tt.query, nil, ClientOptions{}).Ping(ctx).Err()
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && (Classify(err) != Fatal || InDoubt(err)) {
			t.Errorf("%s: kind %v, in doubt %v: %v", tt.name, Classify(err), InDoubt(err), err)
		}
	}
}

// selfSigned writes a certificate for a name, and its key.
func selfSigned(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, b := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
