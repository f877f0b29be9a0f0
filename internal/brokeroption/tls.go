package brokeroption

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// TLSNames are the settings TLS knows.
var TLSNames = []string{"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}

// TLS turns Python's ssl_* settings, under their names in URLs, into a TLS configuration. Without any, certificates are verified against
// the system's authorities.
func TLS(ssl map[string]any) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	text := map[string]string{}
	checkHost := true
	for name, v := range ssl {
		var err error
		switch {
		case v == nil:
		case name == "ssl_check_hostname":
			err = ReadBool(&checkHost, v)
		case slices.Contains(TLSNames, name):
			s := ""
			err = ReadText(&s, v)
			text[name] = s
		default:
			err = fmt.Errorf("unknown; known: %s", strings.Join(TLSNames, ", "))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if file := text["ssl_ca_certs"]; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("ssl_ca_certs: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ssl_ca_certs: %s holds no certificate", file)
		}
	}
	if cert, key := text["ssl_certfile"], text["ssl_keyfile"]; cert != "" || key != "" {
		if key == "" {
			key = cert // one file with both, as Python allows
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("ssl_certfile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	switch strings.ToLower(strings.TrimPrefix(strings.ToUpper(text["ssl_cert_reqs"]), "CERT_")) {
	case "", "required", "optional":
		if !checkHost {
			verifyChainOnly(cfg)
		}
	case "none":
		cfg.InsecureSkipVerify = true // the user asked for it by name
	default:
		return nil, fmt.Errorf("ssl_cert_reqs: %q is unknown; known: required, optional, none", text["ssl_cert_reqs"])
	}
	return cfg, nil
}

// verifyChainOnly checks the certificate's chain but not its name, which crypto/tls has no switch for.
func verifyChainOnly(cfg *tls.Config) {
	roots := cfg.RootCAs
	cfg.InsecureSkipVerify = true // replaced by the check below
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("server sent no certificate")
		}
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
}
