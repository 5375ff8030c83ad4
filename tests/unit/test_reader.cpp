#include "stream/reader.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>

#include "core/dtype.hpp"
#include "stream/layer_weights.hpp"
#include "support/error_of.hpp"
#include "support/safetensors_writer.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
using geom::test::TemporaryFolder;

namespace {

constexpr DType wide[] = {DType::bf16, DType::f16, DType::f32, DType::f64};  // kept as stored
constexpr DType floating[] = {DType::bf16, DType::f16, DType::f32, DType::f64, DType::f8_e4m3, DType::f8_e5m2};
constexpr std::int64_t before = 37;  // bytes of the file in front of the tensor: no alignment is guaranteed

bool is_f8(DType dtype) { return size_of(dtype) == 1; }

// An element of a type that is no number, little-endian: NaN or infinity.
std::string bytes_of_bits(std::uint64_t bits, DType dtype) {
    return {reinterpret_cast<const char*>(&bits), static_cast<std::size_t>(size_of(dtype))};
}

// n elements that are finite, of any sign and size.
std::string finite_elements(DType dtype, std::int64_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::string data(static_cast<std::size_t>(n * size_of(dtype)), '\0');
    const auto width = static_cast<std::size_t>(size_of(dtype));
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(random() & 0xffU);
    for (std::size_t i = width; i <= data.size(); i += width) {  // clears one bit of the exponent in the highest byte
        char& highest = data[i - 1];
        const auto full = dtype == DType::f8_e5m2 ? 0x7c : dtype == DType::f16 ? 0x7c : 0x7f;
        if ((highest & full) == full) highest = static_cast<char>(highest & ~0x40);
    }
    return data;
}

/// A file that holds one matrix, and a weight that is all of it or some rows.
class OneMatrix {
public:
    OneMatrix(DType dtype, std::int64_t rows, std::int64_t cols, unsigned seed = 1)
        : data_(finite_elements(dtype, rows * cols, seed)) {
        weight_.tensor = "model.layers.3.self_attn.q_proj.weight";
        weight_.dtype = dtype;
        weight_.rows = rows;
        weight_.cols = cols;
        weight_.source = FileSource{0, before};
        if (is_f8(dtype)) set_scales(rows, cols, {1.0F});
        write();
    }

    /// Scales of blocks, behind the matrix in the file. Of a whole tensor.
    void set_scales(std::int64_t block_rows, std::int64_t block_cols, const std::vector<float>& scales) {
        set_stored_scales(DType::f32, block_rows, block_cols,
                          {reinterpret_cast<const char*>(scales.data()), 4 * scales.size()});
    }
    void set_stored_scales(DType dtype, std::int64_t block_rows, std::int64_t block_cols, const std::string& scales) {
        const std::int64_t rows = (weight_.rows + block_rows - 1) / block_rows,
                           cols = (weight_.cols + block_cols - 1) / block_cols;
        weight_.scales = {
            weight_.tensor + "_scale_inv", {0, before + std::ssize(data_)}, dtype, rows, cols, block_rows, block_cols};
        scales_ = scales;
        write();
    }
    /// The weight becomes rows [first, first + rows) of the tensor, as part of a fused one.
    void take_rows(std::int64_t first, std::int64_t rows) {
        std::get<FileSource>(weight_.source).offset += first * weight_.row_bytes();
        weight_.first_row = first;
        weight_.rows = rows;
    }
    void put(std::int64_t row, std::int64_t col, const std::string& element) {
        data_.replace(static_cast<std::size_t>((row * weight_.cols + col) * size_of(weight_.dtype)), element.size(),
                      element);
        write();
    }
    void cut_file(std::int64_t bytes) {
        std::filesystem::resize_file(path(), static_cast<std::uintmax_t>(before + bytes));
    }

    std::filesystem::path path() const { return folder_ / "model.safetensors"; }
    const std::string& data() const { return data_; }
    Weight& weight() { return weight_; }
    const Weight& weight() const { return weight_; }
    Reader reader(int threads = 2) const { return Reader({path()}, threads); }

    /// Rows of the weight as the reader leaves them in memory.
    std::string read(Reader& reader, Range rows, bool repeated = false) const {
        std::string out(static_cast<std::size_t>(rows.size() * weight_.cols * size_of(memory_dtype(weight_.dtype))),
                        '\x55');
        const std::vector<ReadJob> jobs = {{&weight_, rows, reinterpret_cast<std::byte*>(out.data()), repeated}};
        reader.read(jobs);
        return out;
    }

private:
    void write() const { test::write_file(path(), std::string(before, '\x7f') + data_ + scales_); }

    TemporaryFolder folder_;
    std::string data_, scales_;
    Weight weight_;
};

class ReaderOf : public ::testing::TestWithParam<DType> {};
class ReaderOfWide : public ReaderOf {};

TEST_P(ReaderOfWide, brings_what_the_file_holds) {
    for (const auto& [rows, cols] :
         {std::pair{1, 1}, {7, 13}, {40, 257}, {3000, 1100}}) {  // the last in several pieces
        const OneMatrix matrix(GetParam(), rows, cols);
        Reader reader = matrix.reader();
        EXPECT_EQ(matrix.read(reader, {0, rows}), matrix.data());
        EXPECT_EQ(reader.bytes_read(), std::ssize(matrix.data()));
    }
}

TEST_P(ReaderOfWide, brings_the_rows_that_were_asked_for_and_touches_nothing_else) {
    const OneMatrix matrix(GetParam(), 20, 9);
    const auto row = static_cast<std::size_t>(matrix.weight().row_bytes());
    Reader reader = matrix.reader();
    std::string out(20 * row, '\x55');
    std::vector<ReadJob> jobs;
    for (const Range rows : {Range{2, 5}, Range{9, 10}, Range{17, 20}}) {
        jobs.push_back({&matrix.weight(), rows,
                        reinterpret_cast<std::byte*>(out.data()) + rows.begin * matrix.weight().row_bytes()});
    }
    reader.read(jobs);
    for (std::size_t r = 0; r < 20; ++r) {
        const bool asked = (r >= 2 && r < 5) || r == 9 || r >= 17;
        EXPECT_EQ(out.substr(r * row, row), asked ? matrix.data().substr(r * row, row) : std::string(row, '\x55')) << r;
    }
    EXPECT_EQ(reader.bytes_read(), 7 * matrix.weight().row_bytes());
}

TEST_P(ReaderOf, locates_what_is_no_number) {
    const DType dtype = GetParam();
    std::vector<std::uint64_t> bad;  // bits: NaN of both signs, infinities, NaN with the lowest bit alone
    switch (dtype) {
        case DType::bf16:
            bad = {0x7fc0, 0xffc0, 0x7f80, 0xff80, 0x7f81};
            break;
        case DType::f16:
            bad = {0x7e00, 0xfe00, 0x7c00, 0xfc00, 0x7c01};
            break;
        case DType::f32:
            bad = {0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000, 0x7f800001};
            break;
        case DType::f64:
            bad = {0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff0000000000001};
            break;
        case DType::f8_e4m3:
            bad = {0x7f, 0xff};
            break;
        default:
            bad = {0x7c, 0xfc, 0x7d, 0x7e, 0xff};
    }
    for (const std::uint64_t bits : bad) {
        for (const auto& [row, col] :
             {std::pair{0, 0}, {2, 1365}, {2, 1366}, {60, 2}, {63, 2047}}) {  // 4096 elements are a stride
            OneMatrix matrix(dtype, 64, 2048);
            matrix.put(row, col, bytes_of_bits(bits, dtype));
            Reader reader = matrix.reader();
            const std::string message = error_of([&] { matrix.read(reader, {0, 64}); }, ExitCode::numerics);
            EXPECT_TRUE(says(message, matrix.path().string(), matrix.weight().tensor,
                             fmt::format("row {}, column {}:", row, col)));
        }
    }
}

TEST_P(ReaderOf, takes_the_largest_finite_numbers_for_numbers) {
    const DType dtype = GetParam();
    const std::uint64_t largest = dtype == DType::bf16      ? 0x7f7f
                                  : dtype == DType::f16     ? 0x7bff
                                  : dtype == DType::f32     ? 0x7f7fffff
                                  : dtype == DType::f64     ? 0x7fefffffffffffff
                                  : dtype == DType::f8_e4m3 ? 0x7e
                                                            : 0x7b;
    OneMatrix matrix(dtype, 3, 5);
    matrix.put(1, 2, bytes_of_bits(largest, dtype));
    Reader reader = matrix.reader();
    EXPECT_NO_THROW(matrix.read(reader, {0, 3}));
}

TEST_P(ReaderOf, counts_rows_of_a_fused_tensor_from_its_start) {
    OneMatrix matrix(GetParam(), 30, 6);
    matrix.put(23, 4, bytes_of_bits(~std::uint64_t{0}, GetParam()));
    matrix.take_rows(20, 10);
    Reader reader = matrix.reader();
    EXPECT_TRUE(says(error_of([&] { matrix.read(reader, {1, 8}); }, ExitCode::numerics), "row 23, column 4:"));
    EXPECT_NO_THROW(matrix.read(reader, {0, 3})) << "rows 20 to 22";
    EXPECT_NO_THROW(matrix.read(reader, {4, 10})) << "rows 24 to 29";
}

TEST_P(ReaderOf, does_not_take_a_file_that_was_cut_for_a_whole_one) {
    OneMatrix matrix(GetParam(), 12, 10);
    Reader reader = matrix.reader();
    matrix.read(reader, {0, 12});
    matrix.cut_file(11 * matrix.weight().row_bytes() + 1);  // while it is open
    EXPECT_TRUE(says(error_of([&] { matrix.read(reader, {0, 11}); }), matrix.path().string(), "written to"));
    const std::string message = error_of([&] { matrix.read(reader, {0, 12}); });
    EXPECT_TRUE(says(message, matrix.path().string(), matrix.weight().tensor, "ends"));
}

INSTANTIATE_TEST_SUITE_P(Reader, ReaderOfWide, ::testing::ValuesIn(wide),
                         [](const auto& test) { return std::string(name_of(test.param)); });
INSTANTIATE_TEST_SUITE_P(Reader, ReaderOf, ::testing::ValuesIn(floating),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST(Reader, knows_the_exponent_of_each_row) {
    const auto exponent_of_bits = [](DType dtype, std::vector<std::uint64_t> bits) {
        std::string data;
        for (const std::uint64_t number : bits)
            data.append(reinterpret_cast<const char*>(&number), static_cast<std::size_t>(size_of(dtype)));
        return exponent_of(dtype, reinterpret_cast<const std::byte*>(data.data()), std::ssize(bits));
    };
    EXPECT_EQ(exponent_of_bits(DType::f32, {0x3f800000, 0xc0400000, 0}), 2) << "1, -3, 0";
    EXPECT_EQ(exponent_of_bits(DType::f32, {0x3f7fffff}), 0) << "just below 1";
    EXPECT_EQ(exponent_of_bits(DType::f32, {1}), -148) << "2^-149, subnormal";
    EXPECT_EQ(exponent_of_bits(DType::bf16, {0x8001, 0x0000}), -132) << "-2^-133, subnormal";
    EXPECT_EQ(exponent_of_bits(DType::bf16, {0x7f7f}), 128);
    EXPECT_EQ(exponent_of_bits(DType::f16, {0x0001, 0x8003}), -22) << "3 2^-24, subnormal";
    EXPECT_EQ(exponent_of_bits(DType::f64, {0x3ff0000000000000, 0x8010000000000000}), 1);
    EXPECT_EQ(exponent_of_bits(DType::f64, {0x8000000000000001}), -1073);
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
        EXPECT_EQ(exponent_of_bits(dtype, {0, 0}), exponent_of_zero);
        EXPECT_GT(exponent_of_bits(dtype, {0, ~std::uint64_t{0}}), 1024) << "NaN";
    }
}

TEST(Reader, widens_f8_by_the_scale_of_its_block) {
    for (const DType dtype : {DType::f8_e4m3, DType::f8_e5m2}) {
        for (const auto& [block_rows, block_cols] : {std::pair{1, 1}, {4, 3}, {7, 16}, {128, 128}}) {
            OneMatrix matrix(dtype, 22, 50);
            std::vector<float> scales;
            const std::int64_t high = (22 + block_rows - 1) / block_rows, across = (50 + block_cols - 1) / block_cols;
            for (std::int64_t i = 0; i < high * across; ++i) scales.push_back(0.37F * static_cast<float>(i + 1));
            matrix.set_scales(block_rows, block_cols, scales);
            matrix.take_rows(5, 17);  // scales count from the tensor's first row
            Reader reader = matrix.reader();
            const std::string out = matrix.read(reader, {2, 16});
            for (std::int64_t row = 7; row < 21; ++row) {
                for (std::int64_t col = 0; col < 50; ++col) {
                    const auto code =
                        static_cast<std::uint8_t>(matrix.data()[static_cast<std::size_t>(row * 50 + col)]);
                    const float scale = scales[static_cast<std::size_t>(row / block_rows * across + col / block_cols)];
                    const float expected =
                        (dtype == DType::f8_e4m3 ? f8_e4m3_to_f32(code) : f8_e5m2_to_f32(code)) * scale;
                    float value = 0.0F;
                    std::memcpy(&value, out.data() + ((row - 7) * 50 + col) * 4, 4);
                    ASSERT_EQ(value, expected) << row << ", " << col;
                }
            }
        }
    }
}

TEST(Reader, locates_a_scale_that_makes_no_number) {
    OneMatrix matrix(DType::f8_e4m3, 8, 8);
    for (std::int64_t i = 0; i < 64; ++i) matrix.put(i / 8, i % 8, "\x40");  // 2.0
    matrix.set_scales(4, 4, {1.0F, 1.0F, 1.0F, 3e38F});
    Reader reader = matrix.reader();
    const std::string message = error_of([&] { matrix.read(reader, {0, 8}); }, ExitCode::numerics);
    EXPECT_TRUE(says(message, matrix.weight().tensor, "row 4, column 4", "scale"));
}

TEST(Reader, refuses_scales_that_are_not_positive_and_finite) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const float wrong : {0.0F, -0.0F, -1.0F, infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
        OneMatrix matrix(DType::f8_e5m2, 8, 8);
        matrix.set_scales(4, 4, {1.0F, 2.0F, wrong, 4.0F});
        Reader reader = matrix.reader();
        for (int again = 0; again < 2; ++again) {
            const std::string message = error_of([&] { matrix.read(reader, {0, 1}); });
            EXPECT_TRUE(says(message, matrix.path().string(), matrix.weight().scales->tensor, "scale 2 is",
                             "positive and finite"));
        }
    }
}

TEST(Reader, names_the_scales_that_a_file_ends_before) {
    OneMatrix matrix(DType::f8_e4m3, 8, 8);
    matrix.cut_file(64 + 3);
    Reader reader = matrix.reader();
    EXPECT_TRUE(says(error_of([&] {
                         matrix.read(reader, {0, 8});
                     }),
                     matrix.path().string(), matrix.weight().scales->tensor, "ends"));
}

TEST(Reader, takes_scales_of_bf16_for_what_they_are) {
    OneMatrix matrix(DType::f8_e4m3, 4, 6), in_f32(DType::f8_e4m3, 4, 6);
    matrix.set_stored_scales(DType::bf16, 2, 3, {"\x80\x3f\x00\x40\x40\x40\x80\x3e", 8});
    in_f32.set_scales(2, 3, {1.0F, 2.0F, 3.0F, 0.25F});
    Reader reader = matrix.reader(), f32_reader = in_f32.reader();
    EXPECT_EQ(matrix.read(reader, {0, 4}), in_f32.read(f32_reader, {0, 4}));
    EXPECT_NE(reader.digest(), f32_reader.digest()) << "their bytes are others";
}

TEST(Reader, reads_scales_once) {
    OneMatrix matrix(DType::f8_e4m3, 22, 50);
    matrix.set_scales(4, 20, std::vector<float>(18, 0.5F));
    Reader reader = matrix.reader();
    EXPECT_EQ(reader.bytes_read(), 0);
    for (const Range rows : {Range{0, 3}, Range{3, 22}, Range{0, 22}}) matrix.read(reader, rows);
    EXPECT_EQ(reader.bytes_read(), 44 * 50 + 4 * 18);
}

TEST(Reader, reads_the_scales_of_a_fused_tensor_once_for_all_its_parts) {
    OneMatrix matrix(DType::f8_e4m3, 22, 50);
    matrix.set_scales(4, 20, std::vector<float>(18, 0.5F));
    Weight low = matrix.weight(), high = matrix.weight();
    low.rows = 9;
    high.rows = high.rows - 9;
    high.first_row = 9;
    std::get<FileSource>(high.source).offset += 9 * high.row_bytes();
    std::vector<std::byte> out(22 * 50 * 4);
    Reader reader = matrix.reader(), whole = matrix.reader();
    const std::vector<ReadJob> jobs = {{&low, {0, 9}, out.data()}, {&high, {0, 13}, out.data() + 9 * 50 * 4}};
    reader.read(jobs);
    EXPECT_EQ(reader.bytes_read(), 22 * 50 + 4 * 18);
    const std::string expected = matrix.read(whole, {0, 22});
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), expected.size()), 0);
    EXPECT_EQ(reader.digest(), whole.digest());
}

TEST(Reader, does_not_believe_a_file_that_is_not_as_its_header_was) {
    const OneMatrix matrix(DType::f32, 12, 10);
    const FileStamp stamp = InputFile(matrix.path()).stamp();
    Reader good({matrix.path()}, 1, {stamp});
    EXPECT_NO_THROW(matrix.read(good, {0, 12}));
    for (FileStamp other : {FileStamp{stamp.device, stamp.inode + 1, stamp.bytes, stamp.modified},
                            FileStamp{stamp.device, stamp.inode, stamp.bytes, stamp.modified - 1}}) {
        Reader reader({matrix.path()}, 1, {other});
        EXPECT_TRUE(says(error_of([&] {
                             matrix.read(reader, {0, 12});
                         }),
                         matrix.path().string(), other.inode == stamp.inode ? "written to" : "replaced"));
    }
}

TEST(Reader, digest_of_rows_adds_up_to_that_of_all) {
    for (const DType dtype : {DType::bf16, DType::f8_e4m3}) {
        OneMatrix matrix(dtype, 22, 50);
        if (is_f8(dtype)) matrix.set_scales(4, 50, {1, 2, 3, 4, 5, 6});
        Reader reader = matrix.reader();
        matrix.read(reader, {0, 22});
        for (std::int64_t cut = 1; cut < 22; ++cut) {
            EXPECT_EQ(reader.digest_of(matrix.weight(), {0, cut}) + reader.digest_of(matrix.weight(), {cut, 22}),
                      reader.digest());
        }
        Reader halo = matrix.reader();
        matrix.read(halo, {3, 9}, true);
        EXPECT_EQ(halo.digest_of(matrix.weight(), {3, 9}), reader.digest_of(matrix.weight(), {3, 9}));
        error_of([&] { halo.digest_of(matrix.weight(), {3, 10}); }, ExitCode::internal);
    }
}

TEST(Reader, digest_tells_other_scales_apart) {
    OneMatrix matrix(DType::f8_e4m3, 22, 50);
    const auto digest_with = [&](std::size_t changed, float scale) {
        std::vector<float> scales(18, 0.5F);
        scales[changed] = scale;
        matrix.set_scales(4, 20, scales);
        Reader reader = matrix.reader();
        matrix.read(reader, {0, 22});
        return reader.digest();
    };
    const std::uint64_t original = digest_with(0, 0.5F);
    for (std::size_t changed = 0; changed < 18; ++changed) EXPECT_NE(digest_with(changed, 0.50001F), original);
    EXPECT_EQ(digest_with(17, 0.5F), original);
}

TEST(Reader, digest_counts_scales_once_whoever_reads_which_rows) {
    OneMatrix matrix(DType::f8_e5m2, 22, 50);
    std::vector<float> scales;
    for (int i = 0; i < 18; ++i) scales.push_back(0.1F * static_cast<float>(i + 1));
    matrix.set_scales(4, 20, scales);
    Reader whole = matrix.reader();
    matrix.read(whole, {0, 22});
    for (std::int64_t rows = 1; rows < 22; ++rows) {
        Reader split = matrix.reader(), low = matrix.reader(), high = matrix.reader();
        for (std::int64_t end = 22; end > 0; end -= rows)
            matrix.read(split, {std::max<std::int64_t>(0, end - rows), end});
        EXPECT_EQ(split.digest(), whole.digest()) << rows << " rows at a time, backwards";
        matrix.read(low, {0, rows});
        matrix.read(high, {rows, 22});
        matrix.read(high, {rows, 22});
        EXPECT_EQ(low.digest() + high.digest(), whole.digest()) << "two ranks, divided at row " << rows;
    }
}

TEST(Reader, names_a_file_that_cannot_be_opened) {
    const OneMatrix matrix(DType::f32, 2, 2);
    Reader reader({matrix.path() / "nothing"}, 1);
    EXPECT_TRUE(says(error_of([&] { matrix.read(reader, {0, 2}); }), (matrix.path() / "nothing").string()));
}

TEST(Reader, digest_does_not_depend_on_pieces_threads_or_order) {
    const OneMatrix matrix(DType::f32, 900, 3000);  // two pieces
    Reader whole = matrix.reader(1);
    matrix.read(whole, {0, 900});
    for (const int threads : {1, 2, 5}) {
        Reader backwards = matrix.reader(threads);
        for (std::int64_t end = 900; end > 0; end -= 90) matrix.read(backwards, {end - 90, end});
        EXPECT_EQ(backwards.digest(), whole.digest());
    }
    Reader low = matrix.reader(), high = matrix.reader();
    matrix.read(low, {0, 333});
    matrix.read(high, {333, 900});
    EXPECT_EQ(low.digest() + high.digest(), whole.digest()) << "two ranks add theirs up";
}

TEST(Reader, digest_counts_a_row_that_is_read_again_once) {
    const OneMatrix matrix(DType::bf16, 50, 8);
    Reader once = matrix.reader(), twice = matrix.reader();
    matrix.read(once, {0, 50});
    matrix.read(twice, {10, 30});
    matrix.read(twice, {0, 50});
    matrix.read(twice, {49, 50});
    EXPECT_EQ(twice.digest(), once.digest());
    EXPECT_EQ(twice.bytes_read(), 71 * matrix.weight().row_bytes())
        << "but bytes are counted as often as they are read";
}

TEST_P(ReaderOf, counts_rows_that_another_reader_has_once) {
    const OneMatrix matrix(GetParam(), 12, 10);
    Reader whole = matrix.reader(), low = matrix.reader(), high = matrix.reader();
    matrix.read(whole, {0, 12});
    matrix.read(low, {0, 6});
    EXPECT_EQ(matrix.read(low, {6, 9}, true), matrix.read(high, {6, 9}));
    matrix.read(high, {9, 12});
    EXPECT_EQ(low.digest() + high.digest(), whole.digest());
    matrix.read(low, {6, 12});  // first as another's, then as its own
    EXPECT_EQ(low.digest(), whole.digest());
    matrix.read(low, {0, 12}, true);
    EXPECT_EQ(low.digest(), whole.digest());
}

TEST(Reader, digest_tells_other_weights_apart) {
    OneMatrix matrix(DType::bf16, 6, 4);
    const auto digest = [&] {
        Reader reader = matrix.reader();
        matrix.read(reader, {0, matrix.weight().rows});
        return reader.digest();
    };
    const std::uint64_t original = digest();
    EXPECT_EQ(digest(), original);
    const std::string low = matrix.data().substr(0, 2);
    matrix.put(0, 0, std::string(1, static_cast<char>(low[0] ^ 1)) + low[1]);
    EXPECT_NE(digest(), original) << "one bit";
    matrix.put(0, 0, low);
    EXPECT_EQ(digest(), original);
    matrix.weight().tensor = "model.layers.4.self_attn.q_proj.weight";
    EXPECT_NE(digest(), original) << "another name";
    matrix.weight().tensor = "model.layers.3.self_attn.q_proj.weight";
    const std::string first = matrix.data().substr(0, 8), second = matrix.data().substr(8, 8);
    matrix.put(0, 0, second);
    matrix.put(1, 0, first);
    EXPECT_NE(digest(), original) << "two rows changed places";
}

TEST(Reader, of_no_jobs_returns) {
    Reader reader({}, 1);
    reader.read({});
    EXPECT_EQ(reader.bytes_read(), 0);
    EXPECT_EQ(reader.digest(), 0U);
}

}  // namespace
