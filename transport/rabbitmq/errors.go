package rabbitmq

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// errNotFound is AMQP's 404: no such queue or exchange.
var errNotFound = errors.New("not found")

// lost reports whether an error means that the connection, or the channel by no fault of its user, is gone.
func lost(err error) bool {
	if errors.Is(err, amqp.ErrClosed) {
		return true
	}
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return errors.Is(err, net.ErrClosed)
	}
	switch e.Code {
	case amqp.ConnectionForced, amqp.FrameError, amqp.InternalError, amqp.ChannelError, amqp.UnexpectedFrame:
		return true
	}
	return false
}

// translate gives the broker's refusals the names the contract has for them.
func translate(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	switch e.Code {
	case amqp.PreconditionFailed:
		return fmt.Errorf("%w: %s", transport.ErrMismatch, e.Reason)
	case amqp.AccessRefused, amqp.NotAllowed, amqp.ResourceLocked:
		return fmt.Errorf("%w: %s", transport.ErrDenied, e.Reason)
	case amqp.NotFound:
		return fmt.Errorf("%w: %s", errNotFound, e.Reason)
	}
	return err
}

// refusal returns err if another attempt with the same settings cannot succeed, else nil.
func refusal(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		switch e.Code {
		case amqp.AccessRefused, amqp.NotAllowed, amqp.NotImplemented:
			return err
		}
		return nil
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	if errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &record) {
		return err
	}
	return nil
}

func firstError(e *amqp.Error, otherwise error) error {
	if e != nil {
		return e
	}
	return otherwise
}
