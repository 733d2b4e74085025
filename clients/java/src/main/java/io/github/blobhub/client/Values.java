package io.github.blobhub.client;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Value;
import com.google.protobuf.util.JsonFormat;
import io.github.blobhub.v1.ExecutionInput;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** JSON values in messages as plain Java values, exactly. */
public final class Values {
  private static final double MAX_EXACT = (double) ((1L << 53) - 1);
  private static final Gson JSON = new GsonBuilder().serializeNulls().create();

  private Values() {}

  /** A value for an execution: null, Boolean, String, any Number, List or Map of these. */
  public static ExecutionInput input(String alias, Object value) {
    return ExecutionInput.newBuilder().setAlias(alias).setValueJson(JSON.toJson(value)).build();
  }

  /**
   * A value of a message in plain Java: null, Boolean, String, Long (BigInteger beyond its range), Double, List or Map. It is in one of
   * two fields: as a Value, or as JSON text, which says what a Value cannot.
   */
  public static Object plain(Value value, String text) {
    try {
      return text.isEmpty() ? plain(JsonParser.parseString(JsonFormat.printer().print(value)), false) : plain(JsonParser.parseString(text), true);
    } catch (InvalidProtocolBufferException unset) {
      return null;
    }
  }

  private static Object plain(JsonElement element, boolean exact) {
    if (element.isJsonNull()) {
      return null;
    }
    if (element instanceof JsonArray array) {
      List<Object> items = new ArrayList<>();
      array.forEach(item -> items.add(plain(item, exact)));
      return items;
    }
    if (element.isJsonObject()) {
      Map<String, Object> members = new LinkedHashMap<>();
      element.getAsJsonObject().entrySet().forEach(each -> members.put(each.getKey(), plain(each.getValue(), exact)));
      return members;
    }
    var primitive = element.getAsJsonPrimitive();
    if (primitive.isBoolean()) {
      return primitive.getAsBoolean();
    }
    return primitive.isString() ? primitive.getAsString() : number(primitive.getAsString(), exact);
  }

  /** A number as it is written; one of a Value is a whole number where a double says it exactly. */
  private static Object number(String text, boolean exact) {
    if (!exact) {
      double number = Double.parseDouble(text);
      boolean whole = number == Math.rint(number) && Math.abs(number) <= MAX_EXACT;
      boolean negativeZero = number == 0 && 1 / number < 0;
      return whole && !negativeZero ? (Object) (long) number : (Object) number;
    }
    if (text.matches(".*[.eE].*")) {
      return Double.parseDouble(text);
    }
    BigInteger number = new BigInteger(text);
    return number.bitLength() < Long.SIZE ? (Object) number.longValueExact() : number;
  }
}
