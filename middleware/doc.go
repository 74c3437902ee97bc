// Package middleware is message handling for any Watermill service: Retry,
// PoisonQueue, CorrelationID, CloudWatch and Recoverer. Each is a struct whose
// zero value works, with one method, Middleware, that a message.Router takes.
//
// They are made to be used together, in this order, outermost first:
//
//	router.AddMiddleware(
//		middleware.CloudWatch{}.Middleware,
//		middleware.CorrelationID{}.Middleware,
//		middleware.PoisonQueue{Topic: topic, Publisher: publisher}.Middleware,
//		middleware.Retry{}.Middleware,
//		middleware.Recoverer{}.Middleware,
//	)
//
// What an error means is said by the handler, with three marks that all of them
// understand:
//
//	Permanent(err)      trying again is useless
//	RetryAfter(err, d)  try again, but not before d has passed
//	HandBack(err)       not the message's fault: nack it as it is
//
// An error without a mark is transient. Of several marks the outermost counts. A
// message whose context has ended is always handed back, whatever the error says.
//
// The package imports the standard library, watermill and watermill/message. How
// each differs from the middleware that Watermill brings is in
// docs/middleware.md.
package middleware
