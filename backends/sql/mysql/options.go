package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

const knownOptions = "charset, connect_timeout, read_timeout, ssl_ca, ssl_cert, ssl_key, unix_socket, write_timeout"

// parseOptions reads the query of a URL. TLS in what it returns lacks the name of the server.
func parseOptions(query url.Values) (*mysql.Config, error) {
	config := mysql.NewConfig()
	config.Timeout = connectTimeout
	for name := range query {
		var err error
		switch v := query.Get(name); name {
		case "charset":
			if !strings.EqualFold(v, "utf8mb4") {
				err = fmt.Errorf("%q: only utf8mb4 holds every text", v)
			}
		case "unix_socket":
			config.Net, config.Addr = "unix", v
		case "connect_timeout":
			config.Timeout, err = seconds(v)
		case "read_timeout":
			config.ReadTimeout, err = seconds(v)
		case "write_timeout":
			config.WriteTimeout, err = seconds(v)
		case "ssl_ca", "ssl_cert", "ssl_key": // below, together
		default:
			return nil, fmt.Errorf("option %q in the URL is unknown; known: %s", name, knownOptions)
		}
		if err != nil {
			return nil, fmt.Errorf("option %q in the URL: %w", name, err)
		}
	}
	var err error
	config.TLS, err = tlsConfig(query.Get("ssl_ca"), query.Get("ssl_cert"), query.Get("ssl_key"))
	return config, err
}

func seconds(v string) (time.Duration, error) {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || !(n > 0 && n <= 86400) {
		return 0, fmt.Errorf("%q is no number of seconds from 0 to 86400", v)
	}
	return time.Duration(n * float64(time.Second)), nil
}

func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	if ca == "" && cert == "" && key == "" {
		return nil, nil
	}
	if ca == "" || (cert == "") != (key == "") {
		return nil, errors.New("the URL's ssl options do not go together: ssl_ca alone, or with ssl_cert and ssl_key")
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("ssl_ca: %w", err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ssl_ca: no certificate is in %s", ca)
	}
	if cert != "" {
		own, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("ssl_cert and ssl_key: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}
