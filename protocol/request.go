package protocol

// Request is one task call as its message says it, whichever protocol version carried it: the headers, and the
// decoded body. Celery's name for it inside a worker is the task request.
type Request struct {
	Headers
	Properties Properties

	Args   []any          // canonical values
	Kwargs map[string]any // never nil after DecodeRequest
	Embed  Embed

	// Protocol is the version the message was written in: 1 or 2.
	Protocol int
}

// Embed is the third element of a protocol 2 body: what follows the task.
type Embed struct {
	Callbacks []Signature // link
	Errbacks  []Signature // link_error
	Chain     []Signature // the rest of the chain, last step first
	Chord     *Signature  // the chord's body, for members of a chord header
	Extra     map[string]any
}
