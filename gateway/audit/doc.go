// Package audit answers what happened to a card, to whom, and under which rule.
//
// A [Log] is a file of JSON lines. [Log.Record] returns only when its record is on the disk, so that a caller who releases an answer after
// it never releases what is not recorded; callers that wait at the same time share one write and one fdatasync. Each line carries a sequence
// number, a keyed hash of the line before it and a keyed hash of itself, and [Verify] tells, with the key, whether anything was edited, left
// out, moved or put in [17].
//
// # The fields of a record
//
// In this order; a field that is empty, zero or false is left out unless it says "always". Text from outside is bounded (see [Event]).
//
//	seq          integer    always  number of the line in its chain, from 1; goes on across restarts and rotated files
//	prev         base64url  always  HMAC of the previous line without its newline; of nothing for seq 1
//	instance     text       always  Config.Instance of the process that wrote the line
//	time         time       always  RFC 3339, UTC, nine decimals: Event.Time, or the time of recording where that is zero
//	phase        word               "intent" or "outcome" for what changes something; left out for single records
//	exchange     text       always  id of the exchange; an intent and its outcome share it
//	trace        text               trace id of the exchange
//	listener     text               name of the listener
//	face         text               the API that the caller spoke
//	operations   texts              what was asked for: card.reveal, pin.set, token.mint, …
//	partner      text               id of the partner
//	user         text               id of the user
//	account      text               id of the partner's service account
//	certificate  hex                SHA-256 of the client certificate's DER
//	card         hex                keyed digest of the card reference
//	issuer       text               name of the issuer
//	call         text               of a forwarded call: method and path as the route declares them
//	result       word               "done", "refused", "failed", "unknown"; always, except that an intent has none yet
//	reason       word               why not, from the closed sets of policy and gateway
//	rule         text               the rule that decided
//	status       integer            HTTP status that the caller gets
//	address      text               the caller's IP address, without zone, IPv4-mapped ones as IPv4
//	legacy       texts              legacy primitives that were used, by name [15]
//	software     true               a PIN was handled in software [14]
//	attempt      hex                under which the exchange redeemed what is good once, or tried to: 32 characters
//	first_attempt hex               of a replay: the attempt that had redeemed it, which another record has as its attempt
//	first_time   time               of a replay: when that was, to the millisecond
//	first_partner text              of a replay: whose credential it is, where it says so itself
//	latency_us   integer    always  microseconds since the exchange began
//	mac          base64url  always  HMAC of this line up to (not including) `,"mac"`
//
// base64url is RFC 4648 section 5 without padding, 43 characters here; hex is lower case, 64 characters but for attempts. Both HMACs use [Config.MAC].
// A first half that ends before `,"mac"` never ends in "}", and a whole line always does: a value of one kind cannot stand for the other.
//
// # Notes
//
// Lines that the log writes about itself have seq, prev, instance, time and mac like any other, and "note" in the place of an event
// (PCI DSS 4.0.1, 10.2.1.6: starting, stopping and pausing of audit logs):
//
//	start       the log was opened
//	stop        the log was closed in order; a "start" without it before means a crash or a cut
//	continue    first line of a new file after [Log.Reopen]
//	resumed     writing works again. since: time of the first failure; lost: records that were refused meanwhile
//	torn        bytes after the last whole record, of a write that a crash cut short, were found by Open and left where they are, closed by
//	            a newline: outside the chain, but accounted for. torn_bytes: how many; torn_mac: their HMAC (base64url)
//	unverified  the same, but with a newline among the bytes: a second crash, or somebody edited the end of the file
//
// # What it does not do
//
// Whoever can write to the file can cut whole lines off its end, and no file can tell that about itself: compare with a [Position] kept
// elsewhere ([Reach]). The file system must keep appended data in order up to the size that it reports after a crash, as ext4 (ordered) and
// XFS do. A file belongs to one process at a time, by flock(2), which other programs are free to ignore.
package audit
