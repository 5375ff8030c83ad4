#include "checkpoint/safetensors.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "support/error_of.hpp"
#include "support/safetensors_writer.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::safetensors_file;
using geom::test::says;

namespace {

std::vector<TensorInfo> parsed(const std::string& file) {
    return parse_safetensors_header(file, static_cast<std::int64_t>(file.size()), "x.safetensors");
}

std::string refusal(const std::string& file) {
    return error_of([&] { parsed(file); });
}

std::string refusal(std::string_view header, std::size_t data_bytes) {
    return refusal(safetensors_file(header, std::string(data_bytes, 'x')));
}

std::string length_field(std::uint64_t length) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>((length >> (8 * i)) & 0xffU);
    return bytes;
}

const std::vector<test::StoredTensor> few = {
    {"a", "BF16", {2, 3}, std::string(12, '\1')}, {"empty", "F32", {0, 7}, ""},
    {"b", "F8_E4M3", {5}, std::string(5, '\2')},  // leaves c misaligned
    {"c", "F32", {1, 1}, std::string(4, '\3')},   {"scalar", "F64", {}, std::string(8, '\4')},
};

TEST(Safetensors, finds_every_tensor_where_it_was_written) {
    const std::string file = safetensors_file(few);
    const auto tensors = parsed(file);
    ASSERT_EQ(tensors.size(), few.size());
    for (std::size_t i = 0; i < few.size(); ++i) {
        EXPECT_EQ(tensors[i].name, few[i].name);
        EXPECT_EQ(name_of(tensors[i].dtype), few[i].dtype);
        EXPECT_EQ(tensors[i].shape, few[i].shape);
        EXPECT_EQ(file.substr(static_cast<std::size_t>(tensors[i].offset), static_cast<std::size_t>(tensors[i].bytes)),
                  few[i].data);
    }
}

TEST(Safetensors, takes_every_dtype_of_the_format) {
    for (const char* dtype : {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16", "I32", "U32",
                              "F32", "F64", "I64", "U64"}) {
        const auto bytes = static_cast<std::size_t>(size_of(dtype_named(dtype).value()));
        EXPECT_EQ(parsed(safetensors_file({{"t", dtype, {3}, std::string(3 * bytes, 'x')}})).size(), 1U) << dtype;
    }
    EXPECT_TRUE(says(refusal(safetensors_file({{"t", "F4", {2}, "x"}})), "tensor 't'", "'F4'"));
}

TEST(Safetensors, takes_entries_in_any_order_a_padded_header_and_a_file_without_tensors) {
    EXPECT_EQ(parsed(safetensors_file(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                                      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   )",
                                      "xyz"))
                  .size(),
              2U);
    EXPECT_TRUE(parsed(safetensors_file("{}", "")).empty());
    EXPECT_TRUE(parsed(safetensors_file(R"({"__metadata__":{"a":"b"}})", "")).empty());
}

TEST(Safetensors, cut_at_any_length_is_an_error) {
    const std::string file = safetensors_file(few);
    ASSERT_LE(file.size(), 4096U);
    test::TemporaryFolder folder;
    const std::string path = folder / "x.safetensors";
    FileStamp stamp;
    for (std::size_t length = 0; length < file.size(); ++length) {
        const std::string cut = file.substr(0, length);
        EXPECT_TRUE(says(refusal(cut), "x.safetensors")) << length;
        test::write_file(path, cut);
        EXPECT_TRUE(says(error_of([&] { read_safetensors_header(path, stamp); }), path)) << length;
    }
    test::write_file(path, file);
    EXPECT_EQ(read_safetensors_header(path, stamp).size(), few.size());
    EXPECT_EQ(stamp.bytes, static_cast<std::int64_t>(file.size()));
    EXPECT_TRUE(says(refusal(file + "x"), "damaged"));
}

TEST(Safetensors, cut_but_with_the_full_size_believed_is_an_error_too) {
    const std::string file = safetensors_file(few);
    const auto bytes = static_cast<std::int64_t>(file.size());
    const std::size_t header_end = file.rfind('}') + 1;
    for (std::size_t length = 0; length < header_end; ++length) {
        error_of([&] { parse_safetensors_header(std::string_view(file).substr(0, length), bytes, "x"); });
    }
}

TEST(Safetensors, any_byte_of_the_header_changed_is_an_error_or_a_file_that_keeps_every_rule) {
    const std::string file = safetensors_file(few);
    const std::size_t header_end = file.rfind('}') + 1;
    for (std::size_t at = 0; at < header_end; ++at) {
        std::string values = std::string("\"{}[],:0159-.eE\\ \x00\xff", 20);
        for (int bit = 0; bit < 8; ++bit) values += static_cast<char>(file[at] ^ (1 << bit));
        for (const char value : values) {
            std::string changed = file;
            changed[at] = value;
            try {
                std::int64_t data = 0;
                for (const TensorInfo& tensor : parsed(changed)) {
                    ASSERT_LE(tensor.offset + tensor.bytes, static_cast<std::int64_t>(file.size()));
                    data += tensor.bytes;
                }
                ASSERT_LE(data, static_cast<std::int64_t>(file.size()));
            } catch (const Error& error) {
                ASSERT_EQ(error.code(), ExitCode::input);
            }
        }
    }
}

TEST(Safetensors, a_header_longer_than_the_format_or_the_file_allows_is_refused_before_anything_is_read) {
    const auto huge = std::numeric_limits<std::int64_t>::max();
    for (const std::uint64_t length : {std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
        EXPECT_TRUE(says(error_of([&] { parse_safetensors_header(length_field(length), huge, "x"); }),
                         fmt::format("header of {} bytes", length)));
    }
    EXPECT_TRUE(says(refusal(length_field(3) + "{}"), "the file has only 2"));
    EXPECT_TRUE(says(refusal(length_field(99'999'999) + "{}"), "the file has only 2"));
    EXPECT_TRUE(says(refusal(length_field(0)), "does not start with '{'"));
}

TEST(Safetensors, a_sparse_file_with_the_largest_header_ends_in_an_error) {
    test::TemporaryFolder folder;
    const std::string path = folder / "bomb.safetensors";
    test::write_file(path, length_field(100'000'000) + "{");
    std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
    FileStamp stamp;
    EXPECT_TRUE(says(error_of([&] { read_safetensors_header(path, stamp); }), "NUL"));
}

TEST(Safetensors, shapes_whose_product_wraps_are_refused) {
    // 2^32 * 2^32 wraps to 0 and 2^62 * 4 bytes to 0 in 64 bits, 2^31 * 2^31 * 2 to a negative number.
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
                     "tensor 't'", "overflows"));
    EXPECT_TRUE(
        says(refusal(R"({"t":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0), "overflows"));
    EXPECT_TRUE(
        says(refusal(R"({"t":{"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,0]}})", 0), "overflows"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1),
                     "has to be from 0"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[36893488147419103233],"data_offsets":[0,1]}})", 1),
                     "has to be an integer"));
}

TEST(Safetensors, shape_and_byte_range_have_to_agree) {
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,6]}})", 6), "takes 8 bytes",
                     "are 6 bytes"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[],"data_offsets":[0,0]}})", 0), "takes 1 bytes"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}})", 0), "entry 0 of 'shape'"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1), "entry 0 of 'shape'"));
}

TEST(Safetensors, tensors_may_not_overlap_leave_gaps_or_lie_outside_of_the_file) {
    const auto two = [](int a0, int a1, int b0, int b1) {
        return fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                           R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                           a1 - a0, a0, a1, b1 - b0, b0, b1);
    };
    EXPECT_EQ(parsed(safetensors_file(two(0, 4, 4, 8), std::string(8, 'x'))).size(), 2U);
    EXPECT_TRUE(says(refusal(two(0, 4, 3, 8), 8), "'b'", "begin at 3", "end at 4"));
    EXPECT_TRUE(says(refusal(two(0, 4, 0, 4), 4), "begin at 0"));
    EXPECT_TRUE(says(refusal(two(0, 4, 5, 8), 8), "begin at 5"));
    EXPECT_TRUE(says(refusal(two(1, 4, 4, 8), 8), "begin at 1"));
    EXPECT_TRUE(says(refusal(two(0, 4, 4, 8), 9), "9 bytes follow the header"));
    EXPECT_TRUE(says(refusal(two(0, 4, 4, 8), 7), "cut short"));
    EXPECT_TRUE(
        says(refusal(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[9223372036854775805,9223372036854775807]}})", 2),
             "begin at 9223372036854775805"));
}

TEST(Safetensors, an_empty_tensor_inside_of_another_is_refused) {
    EXPECT_TRUE(says(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
                             4),
                     "'e'"));
}

TEST(Safetensors, byte_ranges_have_to_be_a_begin_and_an_end) {
    for (const char* range : {"[4,0]", "[0]", "[]", "[0,1,2]", "4", "null", "[0,-1]", "[\"0\",\"1\"]", "{}"}) {
        EXPECT_TRUE(says(refusal(fmt::format(R"({{"t":{{"dtype":"U8","shape":[1],"data_offsets":{}}}}})", range), 1),
                         "data_offsets"))
            << range;
    }
}

TEST(Safetensors, what_an_entry_lacks_is_named) {
    EXPECT_TRUE(says(refusal(R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1), "'dtype' is missing"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", 1), "'shape' is missing"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[1]}})", 1), "'data_offsets' is missing"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":7,"shape":[1],"data_offsets":[0,1]}})", 1), "'dtype' is a number"));
    EXPECT_TRUE(says(refusal(R"({"t":[1]})", 1), "is an array"));
}

TEST(Safetensors, metadata_has_to_be_an_object_of_strings) {
    EXPECT_TRUE(says(refusal(R"({"__metadata__":{"a":1}})", 0), "__metadata__", "'a'"));
    EXPECT_TRUE(says(refusal(R"({"__metadata__":"x"})", 0), "__metadata__ is a string"));
    EXPECT_TRUE(says(refusal(R"({"__metadata__":null})", 0), "__metadata__ is null"));
}

TEST(Safetensors, duplicate_names_are_refused_at_every_level) {
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                             2),
                     "'t' stands twice"));
    EXPECT_TRUE(says(refusal(R"({"t":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})", 1),
                     "'shape' stands twice"));
    EXPECT_TRUE(says(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), "stands twice"));
    EXPECT_TRUE(says(refusal(R"({"__metadata__":{"a":"1","\u0061":"2"}})", 0), "'a' stands twice"));
}

TEST(Safetensors, deep_nesting_and_text_that_is_no_strict_json_are_refused) {
    EXPECT_TRUE(says(refusal("{\"a\":" + std::string(100'000, '['), 0), "nesting beyond 64"));
    EXPECT_TRUE(says(refusal("{\"a\":" + std::string(100'000, '{'), 0), "header"));
    EXPECT_TRUE(says(refusal(" {}", 0), "does not start with '{'"));
    EXPECT_TRUE(says(refusal("{}x", 0), "column 3"));
    EXPECT_TRUE(says(refusal("{}{}", 0), "column 3"));
    EXPECT_TRUE(says(refusal(std::string_view("{}\0", 3), 0), "NUL"));
    EXPECT_TRUE(says(refusal("{\"\xc0\xaf\":1}", 0), "UTF-8"));
}

TEST(Safetensors, folders_pipes_and_missing_files_are_errors_without_a_wait) {
    test::TemporaryFolder folder;
    FileStamp stamp;
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    EXPECT_TRUE(says(error_of([&] { read_safetensors_header(folder / "pipe", stamp); }), "pipe"));
    EXPECT_TRUE(says(error_of([&] { read_safetensors_header(folder.path(), stamp); }), "is a folder"));
    EXPECT_TRUE(says(error_of([&] { read_safetensors_header(folder / "none", stamp); }), "No such file"));
    EXPECT_TRUE(says(error_of([&] { read_safetensors_header("/dev/zero", stamp); }), "device"));
}

}  // namespace
