// Package protocol is Celery's wire format: task messages of protocol 2 and 1, the envelope that Redis lists hold,
// results, exceptions, signatures and dates. Pure functions: no network, no clock, no goroutines.
package protocol
