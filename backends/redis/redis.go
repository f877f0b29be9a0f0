// Package redis is Celery's Redis result backend: the same keys, channels, documents and expiry, so that Go and Python
// read each other's results. Importing it makes redis://, rediss://, redis+socket:// and sentinel:// known to
// backends.Open. Redis Cluster is not supported, nor is it by Celery.
package redis

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
)

func init() { backends.Register(Open, redisconn.Schemes...) }

const (
	defaultExpires = 24 * time.Hour

	batchRecords = 256       // one script call stores at most so many documents
	batchBytes   = 4 << 20   // or so many bytes, or a single document
	batchKeys    = 500       // keys of one MGET or DEL
	maxDocument  = 512 << 20 // Redis' own limit of a string, and Celery's of a document
	keptBuffer   = 1 << 20   // larger buffers are not kept for reuse
)

//go:embed store.lua
var storeSource string

var storeScript = redis.NewScript(storeSource)

// optionNames are the transport options that are ours and not the connection's. Celery's documentation shows the
// last two in result_backend_transport_options: they are accepted and have nothing to do here.
var optionNames = []string{"global_keyprefix", "result_chord_ordered", "retry_policy", "visibility_timeout"}

// Backend is an open Redis result backend.
type Backend struct {
	config    *redisconn.Config
	codec     backends.Codec
	client    redis.UniversalClient
	log       *slog.Logger
	global    string        // in front of all keys and channels
	prefix    string        // of keys and channels of tasks
	ttl       time.Duration // whole seconds; 0: for ever
	ordered   bool          // parts of chords, by their places
	scriptTop []any         // the storing script's arguments before the documents; the first is ttl in seconds
	largest   int           // bytes of a document
	listener  *listener
	buffers   sync.Pool // *[]byte
}

// Open connects to Redis; package redisconn says what the URL and the transport options may hold. Beside the options
// of the connection there are global_keyprefix, put before every key and channel
// ([backends.GlobalKeyPrefix]), and result_chord_ordered (default true), by which a chord's body gets the results in the order of
// the header, else in that of their coming. All workers must have the same.
//
// It tries until Redis answers or ctx is done; with Lazy it does not ask.
func Open(ctx context.Context, url string, o backends.Options) (backends.Backend, error) {
	cfg, err := redisconn.Parse(url, o.TransportOptions, optionNames...)
	if err != nil {
		return nil, fmt.Errorf("result backend: %w", err)
	}
	codec, err := backends.NewCodec(o)
	if err != nil {
		return nil, err
	}
	global, err := backends.GlobalKeyPrefix(o.TransportOptions["global_keyprefix"])
	if err != nil {
		return nil, err
	}
	ordered := true
	if v := o.TransportOptions["result_chord_ordered"]; v != nil {
		var ok bool
		if ordered, ok = v.(bool); !ok {
			return nil, fmt.Errorf("transport option \"result_chord_ordered\": %T is not true or false", v)
		}
	}
	log := o.Logger
	if log == nil {
		log = slog.Default()
	}
	b := &Backend{
		config: cfg,
		codec:  codec,
		client: cfg.Client(redisconn.ClientOptions{}),
		log:    log.With("backend", cfg.Redacted()),
		global: global,
		prefix: global + backends.TaskKeyPrefix,

		ordered: ordered,
		largest: maxDocument,
	}
	b.ttl = ttl(o.Expires)
	b.scriptTop = scriptTop(b.ttl, codec.Serializer.Name())
	b.buffers.New = func() any { return new([]byte) }
	b.listener = newListener(b)
	if o.Lazy {
		return b, nil // the client connects with its first command
	}
	err = redisconn.Do(ctx, b.log, "connect to result backend "+cfg.Redacted(), func(ctx context.Context) error {
		return b.client.Ping(ctx).Err()
	})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// ttl rounds how long results are kept up to whole seconds, which is all that Celery knows; 0 is for ever.
func ttl(expires time.Duration) time.Duration {
	switch {
	case expires == 0:
		return defaultExpires
	case expires < 0:
		return 0
	}
	return (expires + time.Second - 1).Truncate(time.Second)
}

// markTTL is how long marks of chords and claims are kept: as long as results, but not for ever, because nobody forgets them. They
// are of use while a message may come again.
func (b *Backend) markTTL() time.Duration { return cmp.Or(b.ttl, defaultExpires) }

func scriptTop(ttl time.Duration, serializer string) []any {
	prefixes := protocol.SuccessPrefixes(serializer)
	top := []any{strconv.FormatInt(int64(ttl/time.Second), 10), protocol.SuccessLine(serializer), strconv.Itoa(len(prefixes))}
	for _, p := range prefixes {
		top = append(top, p)
	}
	return top
}

func (b *Backend) key(id string) string { return b.prefix + id }

// Store is backends.Backend's: one script call for up to 256 records or 4 MiB. It waits out a Redis that is full.
func (b *Backend) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	buffer := b.buffers.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= keptBuffer {
			b.buffers.Put(buffer)
		}
	}()
	documents := (*buffer)[:0]
	ends := make([]int, len(batch))
	for i, m := range batch {
		var err error
		start := len(documents)
		if documents, err = b.codec.Append(documents, m); err != nil {
			return err
		}
		if size := len(documents) - start; size > b.largest {
			return b.tooLarge(m.TaskID, size)
		}
		ends[i] = len(documents)
	}
	*buffer = documents

	for first, start := 0, 0; first < len(batch); {
		n := 1
		for first+n < len(batch) && n < batchRecords && ends[first+n]-start <= batchBytes {
			n++
		}
		if err := b.storeSome(ctx, batch[first:first+n], documents, start, ends[first:first+n]); err != nil {
			return err
		}
		first += n
		start = ends[first-1]
	}
	return nil
}

func (b *Backend) tooLarge(id string, size int) error {
	return &backends.EncodeError{TaskID: id, Err: fmt.Errorf("%d bytes are more than the %d that Redis takes", size, b.largest)}
}

func (b *Backend) storeSome(ctx context.Context, batch []*protocol.ResultMeta, documents []byte, start int, ends []int) error {
	keys := make([]string, len(batch))
	args := make([]any, 0, len(b.scriptTop)+len(batch))
	args = append(args, b.scriptTop...)
	for i, m := range batch {
		keys[i] = b.key(m.TaskID)
		args = append(args, documents[start:ends[i]])
		start = ends[i]
	}
	// Storing twice is harmless: a SUCCESS is skipped the second time, anything else is written over itself.
	return redisconn.Do(ctx, b.log, "store results", func(ctx context.Context) error {
		return storeScript.Run(ctx, b.client, keys, args...).Err()
	}, redisconn.RetryFull)
}

// Get is backends.Backend's.
func (b *Backend) Get(ctx context.Context, id string) (*protocol.ResultMeta, error) {
	var data []byte
	err := redisconn.Do(ctx, b.log, "get result", func(ctx context.Context) (err error) {
		data, err = b.client.Get(ctx, b.key(id)).Bytes()
		return err
	})
	if errors.Is(err, redis.Nil) {
		return backends.Pending(id), nil
	}
	if err != nil {
		return nil, err
	}
	return b.codec.Decode(id, data)
}

// GetMany is backends.Backend's: one MGET for up to 500 tasks.
func (b *Backend) GetMany(ctx context.Context, ids ...string) ([]*protocol.ResultMeta, error) {
	metas := make([]*protocol.ResultMeta, 0, len(ids))
	for some := range slices.Chunk(ids, batchKeys) {
		keys := make([]string, len(some))
		for i, id := range some {
			keys[i] = b.key(id)
		}
		var values []any
		err := redisconn.Do(ctx, b.log, "get results", func(ctx context.Context) (err error) {
			values, err = b.client.MGet(ctx, keys...).Result()
			return err
		})
		if err != nil {
			return nil, err
		}
		for i, id := range some {
			m := backends.Pending(id)
			if text, ok := values[i].(string); ok {
				if m, err = b.codec.Decode(id, []byte(text)); err != nil {
					return nil, err
				}
			}
			metas = append(metas, m)
		}
	}
	return metas, nil
}

// Watch is backends.Backend's. All watches of a backend share one connection and subscribe to a task once.
func (b *Backend) Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		in, ids := backends.NewInbox(ids)
		if err := b.listener.join(in, ids); err != nil {
			yield(nil, err)
			return
		}
		defer b.listener.leave(in, ids...)
		in.Run(ctx, b.codec, func(id string) { b.listener.leave(in, id) }, yield)
	}
}

// Forget is backends.Backend's.
func (b *Backend) Forget(ctx context.Context, ids ...string) error {
	for len(ids) > 0 {
		n := min(len(ids), batchKeys)
		keys := make([]string, n)
		for i, id := range ids[:n] {
			keys[i] = b.key(id)
		}
		ids = ids[n:]
		err := redisconn.Do(ctx, b.log, "forget results", func(ctx context.Context) error {
			return b.client.Del(ctx, keys...).Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close ends the connections. Watches still running end with an error.
func (b *Backend) Close() error {
	b.listener.close()
	err := b.client.Close()
	if errors.Is(err, redis.ErrClosed) {
		return nil // closed twice
	}
	return err
}
