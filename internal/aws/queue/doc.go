// Package queue is Amazon SQS as a Watermill publisher and subscriber.
//
// The receiving is done by watermill-aws, one Subscribe and batches of one. What
// it lacks for work that takes minutes is added here, around it:
//
//	ReceiveMessage   one at a time, behind a gate; never cut off once it is sent
//	   |
//	held             a message of its own, whose visibility is extended until it
//	   |             is settled, for up to 12 hours; the receive loop goes on
//	   |- ack        DeleteMessage
//	   |- nack       ChangeMessageVisibility, after a backoff; or, received twice
//	   |             and more, sent again and deleted, so that the queue's
//	   |             RedrivePolicy never takes it
//	   '- Close      what was not handed out becomes visible at once
//
// Settling has deadlines of its own and works after Close began and after the
// context of the subscription ended.
//
// What is known of a delivery travels in the context of the message
// (protocol.DeliveryOf), since SQS allows ten attributes only.
package queue
