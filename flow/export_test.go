package flow

// EncodeEvents is for the test of the encoding.
var EncodeEvents = encodeEvents

// AppendValue is for the test that holds it to encoding/json.
var AppendValue = appendValue
