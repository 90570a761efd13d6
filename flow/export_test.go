package flow

// EncodeEvents is for the test of the encoding.
var EncodeEvents = encodeEvents
