package protocol

import (
	"encoding/json"

	"github.com/gelery/gelery/protocol/serialization"
)

// Message is one task message as every transport carries it: headers, properties and the encoded body. A driver
// builds it from its own form (the Redis envelope, an AMQP delivery) and turns it back; the text of Body is what the
// serializer wrote, still compressed if Headers.Compression says so.
type Message struct {
	Headers         Headers
	Properties      Properties
	ContentType     string // serializer's MIME type; exact text, no parameters
	ContentEncoding string // "utf-8" or "binary"
	Body            []byte
}

// Headers are the application headers of protocol 2. A protocol 1 message has none of them: Task is empty then and
// everything is in the body.
//
// A known header whose value has the wrong JSON type is left zero and named in Malformed; it is kept in Extra so that
// nothing is lost. Unknown headers rest in Extra with their exact bytes and are written back unchanged.
type Headers struct {
	Lang                string
	Task                string
	ID                  string
	Shadow              string
	ETA                 string // ISO 8601 as received; ParseTime reads it
	Expires             string
	Group               string
	GroupIndex          *int
	Retries             int
	TimeLimit           TimeLimit
	RootID              string
	ParentID            string
	ArgsRepr            string
	KwargsRepr          string
	Origin              string
	IgnoreResult        *bool // nil: left to the worker's own definition of the task
	ReplacedTaskNesting int
	StampedHeaders      []string
	Stamps              map[string]json.RawMessage
	Compression         string // MIME type of the body's compression; empty: none
	Redelivered         bool   // set by the Redis transport when it restores a message

	Extra     []Header // unknown headers, in the order received
	Malformed []string // known headers whose value could not be read, e.g. "timelimit"
}

// StampValues are the stamps, decoded: Celery's request.stamps. What is no JSON value is left out; nil if there are none.
func (h *Headers) StampValues() map[string]any {
	if len(h.Stamps) == 0 {
		return nil
	}
	values := make(map[string]any, len(h.Stamps))
	for name, text := range h.Stamps {
		if v, err := serialization.DecodeJSON(text); err == nil {
			values[name] = v
		}
	}
	return values
}

// Header is one header with its value as JSON text. AMQP drivers convert table values to and from JSON.
type Header struct {
	Name  string
	Value json.RawMessage
}

// TimeLimit is the timelimit header, in seconds. Zero: no limit. On the wire the hard limit stands first.
type TimeLimit struct{ Hard, Soft float64 }

// Properties are the message properties beside content type and encoding.
type Properties struct {
	CorrelationID string
	ReplyTo       string
	DeliveryMode  int    // 2 persistent (default when 0), 1 transient
	Priority      int    // as given; transports clamp it when they map it to a queue
	Expiration    string // milliseconds as text; RabbitMQ enforces it, Redis does not
	DeliveryTag   string // Redis: chosen by the publisher, unique per copy; empty: made when written
	DeliveryInfo  DeliveryInfo

	Extra []Header // unknown properties, in the order received (Python leaks unknown apply_async options here)
}

// DeliveryInfo says where a message was published to. Retries go back there.
type DeliveryInfo struct {
	Exchange    string
	RoutingKey  string
	Redelivered bool
}
